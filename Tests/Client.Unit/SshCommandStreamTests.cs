using System.Diagnostics;
using System.Security.Cryptography;

namespace FCtrans.Client.Unit.Tests;

/// <summary>The duplex stream over a real sshd: HTTP/2 relies on all of this.</summary>
public sealed class SshCommandStreamTests : IDisposable
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(30);

    private readonly SshServer _server = new();
    private readonly SshSession _session;

    public SshCommandStreamTests()
    {
        _server.Know();
        _session = new SshSession(_server.Settings);
    }

    public void Dispose()
    {
        _session.Dispose();
        _server.Dispose();
    }

    [Fact]
    public async Task Large_data_passes_both_ways_at_once_unharmed()
    {
        // Far beyond every window and buffer on the way, so that each side must wait for the other many times.
        byte[] sent = RandomNumberGenerator.GetBytes(24 << 20);
        using SshCommandStream stream = await _session.StartAsync($"head -c {sent.Length}", default);
        Task writing = Task.Run(async () =>
        {
            for (int at = 0; at < sent.Length;)
            {
                int count = Math.Min(1 + (at % 100_000), sent.Length - at);
                await stream.WriteAsync(sent.AsMemory(at, count));
                at += count;
            }
        });
        var received = new MemoryStream();
        await stream.CopyToAsync(received).WaitAsync(TimeSpan.FromSeconds(60));
        await writing;
        Assert.True(received.ToArray().AsSpan().SequenceEqual(sent));
        Assert.Equal(0, await stream.WaitForExitAsync(s_limit));
    }

    [Fact]
    public async Task A_pending_read_holds_up_no_write()
    {
        using SshCommandStream stream = await _session.StartAsync("read line; echo \"got $line\"", default);
        byte[] buffer = new byte[100];
        Task<int> reading = stream.ReadAsync(buffer).AsTask();
        await stream.WriteAsync("hello\n"u8.ToArray()).AsTask().WaitAsync(s_limit);
        int count = await reading.WaitAsync(s_limit);
        Assert.Equal("got hello\n", System.Text.Encoding.UTF8.GetString(buffer, 0, count));
    }

    [Fact]
    public async Task A_read_can_be_given_up_and_the_next_one_gets_the_data()
    {
        using SshCommandStream stream = await _session.StartAsync("read x; echo data", default);
        byte[] buffer = new byte[100];
        using var cancel = new CancellationTokenSource();
        Task<int> reading = stream.ReadAsync(buffer, cancel.Token).AsTask();
        cancel.Cancel();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => reading);
        await stream.WriteAsync("\n"u8.ToArray());
        Assert.Equal(5, await stream.ReadAsync(buffer).AsTask().WaitAsync(s_limit));
    }

    [Fact]
    public async Task Reading_no_bytes_waits_for_data_and_takes_none()
    {
        using SshCommandStream stream = await _session.StartAsync("read x; echo data", default);
        Task<int> waiting = stream.ReadAsync(Memory<byte>.Empty).AsTask();
        Assert.False(waiting.IsCompleted);
        await stream.WriteAsync("\n"u8.ToArray());
        Assert.Equal(0, await waiting.WaitAsync(s_limit));
        Assert.Equal(5, await stream.ReadAsync(new byte[100]).AsTask().WaitAsync(s_limit));
    }

    [Fact]
    public async Task The_status_and_the_end_of_standard_error_are_kept()
    {
        using SshCommandStream stream = await _session.StartAsync(
            "i=0; while [ $i -lt 2000 ]; do echo noise $i >&2; i=$((i+1)); done; echo 'the reason' >&2; exit 5", default);
        Assert.Equal(0, await stream.ReadAsync(new byte[10]).AsTask().WaitAsync(s_limit));
        Assert.Equal(5, await stream.WaitForExitAsync(s_limit));
        Assert.EndsWith("the reason", stream.ErrorTail);
        Assert.InRange(stream.ErrorTail.Length, 1000, 4096);
    }

    [Fact]
    public async Task Writing_to_a_command_that_ended_fails()
    {
        using SshCommandStream stream = await _session.StartAsync("exit 0", default);
        Assert.Equal(0, await stream.WaitForExitAsync(s_limit));
        await Assert.ThrowsAsync<IOException>(() => stream.WriteAsync(new byte[10]).AsTask());
    }

    [Fact]
    public async Task A_command_that_ends_while_much_is_written_does_not_hang_the_writer()
    {
        using SshCommandStream stream = await _session.StartAsync("head -c 1000 >/dev/null; exit 0", default);
        await Assert.ThrowsAsync<IOException>(async () =>
        {
            byte[] chunk = new byte[1 << 20];
            var patience = Stopwatch.StartNew();
            while (patience.Elapsed < s_limit)
            {
                await stream.WriteAsync(chunk);
            }
        });
    }

    [Fact]
    public async Task A_connection_that_breaks_ends_reading_with_an_error_not_with_an_end()
    {
        using SshCommandStream stream = await _session.StartAsync("cat", default);
        Task<int> reading = stream.ReadAsync(new byte[10]).AsTask();
        _server.Stop();
        await Assert.ThrowsAsync<IOException>(() => reading.WaitAsync(s_limit));
        _server.Start(again: true);
    }

    [Fact]
    public async Task Commands_that_come_and_go_at_once_share_the_connection()
    {
        // As many as a host lets one connection have; half of them end by themselves just when they are given up.
        await Parallel.ForEachAsync(Enumerable.Range(0, 400), new ParallelOptions { MaxDegreeOfParallelism = 8 }, async (i, _) =>
        {
            using SshCommandStream stream = await _session.StartAsync(i % 2 == 0 ? "head -n 1" : "cat", default);
            await stream.WriteAsync(System.Text.Encoding.ASCII.GetBytes($"{i}\n"));
            byte[] buffer = new byte[100];
            int count = await stream.ReadAsync(buffer).AsTask().WaitAsync(s_limit);
            Assert.Equal($"{i}\n", System.Text.Encoding.ASCII.GetString(buffer, 0, count));
        });
    }

    [Fact]
    public async Task Disposing_ends_the_remote_command()
    {
        string pidFile = _server.PathOf("pid");
        SshCommandStream stream = await _session.StartAsync($"echo $$ > {pidFile}.new; mv {pidFile}.new {pidFile}; exec cat", default);
        Assert.True(SpinWait.SpinUntil(() => File.Exists(pidFile), s_limit));
        int pid = int.Parse(await File.ReadAllTextAsync(pidFile));
        stream.Dispose();
        Assert.True(SpinWait.SpinUntil(() => !Directory.Exists($"/proc/{pid}"), s_limit));
    }
}
