using FCtrans.Contracts;

namespace FCtrans.Client.Unit.Tests;

/// <summary>Bringing the agent to a host and speaking to it, over a real sshd.</summary>
public sealed class KvmHostConnectionTests : IDisposable
{
    private readonly FakeHost _host = new();

    public void Dispose() => _host.Dispose();

    private string AgentFile => _host.PathOf($".local/share/fctrans/agent/{_host.Package.DirectoryName}/fctrans-agent");

    [Fact]
    public async Task The_agent_is_brought_once_and_again_when_it_differs()
    {
        using (KvmHostConnection first = await _host.ConnectAsync())
        {
            Assert.Equal(AgentFile, first.AgentPath);
            Assert.Equal(_host.Name, first.Info.HostName);
        }

        Assert.Equal(File.ReadAllBytes(_host.Package.Path), File.ReadAllBytes(AgentFile));
        ulong inode = Inode();
        (await _host.ConnectAsync()).Dispose();
        Assert.Equal(inode, Inode());

        File.AppendAllText(AgentFile, "# somebody changed it\n");
        (await _host.ConnectAsync()).Dispose();
        Assert.Equal(File.ReadAllBytes(_host.Package.Path), File.ReadAllBytes(AgentFile));
        Assert.Equal([AgentFile], Directory.GetFiles(Path.GetDirectoryName(AgentFile)!));
    }

    [Fact]
    public async Task A_directory_that_can_not_be_written_is_told_with_the_hosts_reason()
    {
        // Not a directory: root may write anywhere, but not below a file.
        Directory.CreateDirectory(_host.PathOf(".local/share"));
        File.WriteAllText(_host.PathOf(".local/share/fctrans"), "in the way");
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(_host.ConnectAsync);
        Assert.Equal("AgentUploadFailed", e.ErrorId);
        Assert.Contains("directory", e.Message, StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public async Task A_host_of_another_kind_is_refused_before_anything_is_sent()
    {
        File.WriteAllText(_host.PathOf("bin/uname"), "#!/bin/sh\necho Linux aarch64\n");
        File.SetUnixFileMode(_host.PathOf("bin/uname"), (UnixFileMode)0b111_101_101);
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(_host.ConnectAsync);
        Assert.Equal("HostUnsupported", e.ErrorId);
        Assert.Contains("aarch64", e.Message);
        Assert.False(Directory.Exists(_host.PathOf(".local")));
    }

    [Fact]
    public async Task An_agent_that_does_not_start_is_told_with_what_it_said()
    {
        File.WriteAllText(_host.PathOf("refuse-to-start"), "libssl.so.3: cannot open shared object file");
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(_host.ConnectAsync);
        Assert.Equal("AgentStartFailed", e.ErrorId);
        Assert.Contains("libssl.so.3: cannot open", e.Message);
    }

    [Fact]
    public async Task Calls_go_on_over_a_new_connection_when_the_old_one_broke()
    {
        using KvmHostConnection connection = await _host.ConnectAsync();
        _host.Server.Stop();
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(() => connection.ListVmsAsync(default));
        Assert.Contains(e.ErrorId, (string[])["ConnectionLost", "HostUnreachable"]);
        _host.Server.Start(again: true);
        Assert.Empty(await connection.ListVmsAsync(default));
        Assert.True(connection.IsConnected);
    }

    [Fact]
    public async Task A_call_can_be_given_up_at_once()
    {
        using KvmHostConnection connection = await _host.ConnectAsync();
        WorkerConnection worker = connection.ConnectWorker("00", WorkerRole.Source, "vm");
        using var cancel = new CancellationTokenSource();
        var watching = Task.Run(async () =>
        {
            await foreach (WorkerStatus _ in worker.WatchAsync(TimeSpan.FromMilliseconds(100), cancel.Token))
            {
            }
        });
        Assert.True(SpinWait.SpinUntil(() => _host.Calls.Contains("Watch 00/source"), TimeSpan.FromSeconds(30)));
        cancel.Cancel();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => watching.WaitAsync(TimeSpan.FromSeconds(10)));
    }

    [Fact]
    public async Task What_the_agent_says_of_a_vm_becomes_an_error_about_the_vm()
    {
        using KvmHostConnection connection = await _host.ConnectAsync();
        _host.Fail("GetUnusedMemory", "NotFound no such VM");
        Assert.Equal("VmNotFound", (await Unused()).ErrorId);
        _host.Fail("GetUnusedMemory", "FailedPrecondition its memory is private");
        FCtransException e = await Unused();
        Assert.Equal("VmMemoryUnreadable", e.ErrorId);
        Assert.Contains("its memory is private", e.Message);
        _host.Fail("GetUnusedMemory", "Internal the scan went wrong");
        e = await Unused();
        Assert.Equal("AgentRefused", e.ErrorId);
        Assert.Contains("the scan went wrong", e.Message);

        Task<FCtransException> Unused() =>
            Assert.ThrowsAsync<FCtransException>(() => connection.GetUnusedMemoryAsync("vm", default));
    }

    private ulong Inode()
    {
        using var process = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo("stat", ["-c", "%i", AgentFile])
        {
            RedirectStandardOutput = true,
        })!;
        return ulong.Parse(process.StandardOutput.ReadToEnd());
    }
}
