using System.Net;
using System.Net.Sockets;

namespace FCtrans.Client.Unit.Tests;

/// <summary>Connections to a real sshd: whom we trust, whom it trusts.</summary>
public sealed class SshSessionTests : IDisposable
{
    private readonly SshServer _server = new();

    public void Dispose() => _server.Dispose();

    [Fact]
    public async Task An_unknown_host_is_refused_with_its_fingerprint_and_nothing_is_written()
    {
        FCtransException e = await Refused(_server.Settings);
        Assert.Equal("HostKeyUnknown", e.ErrorId);
        Assert.Contains(Fingerprint(), e.Message);
        Assert.Contains("-AcceptHostKey", e.Remedy);
        Assert.False(File.Exists(_server.KnownHosts));
    }

    [Fact]
    public async Task A_port_that_is_open_and_says_nothing_is_given_up_in_time()
    {
        using var silent = new TcpListener(IPAddress.Loopback, 0);
        silent.Start();
        KvmHostSettings settings = _server.Settings with { Port = ((IPEndPoint)silent.LocalEndpoint).Port };
        Assert.Equal("HostUnreachable", (await Refused(settings with { Timeout = TimeSpan.FromSeconds(1) })).ErrorId);

        using var session = new SshSession(settings);
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(
            () => session.RunAsync("true", null, TimeSpan.FromMilliseconds(500), CancellationToken.None));
        Assert.Equal("HostTimeout", e.ErrorId);
        Assert.Equal(FailureKind.Timeout, e.Kind);
        Assert.Equal("127.0.0.1", e.Target);
    }

    [Fact]
    public async Task Accepting_an_unknown_host_remembers_it()
    {
        await Connect(_server.Settings with { AcceptUnknownHostKey = true });
        await Connect(_server.Settings);
        Assert.Equal($"[127.0.0.1]:{_server.Port} {_server.HostKey()}", File.ReadAllText(_server.KnownHosts).Trim());
    }

    [Fact]
    public async Task A_changed_key_is_refused_even_when_unknown_ones_are_accepted_and_taken_only_by_its_fingerprint()
    {
        _server.Know("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJj");
        FCtransException e = await Refused(_server.Settings with { AcceptUnknownHostKey = true });
        Assert.Equal("HostKeyChanged", e.ErrorId);
        Assert.Equal("HostKeyChanged", (await Refused(_server.Settings with { AcceptedFingerprint = "SHA256:" + new string('A', 43) })).ErrorId);
        await Connect(_server.Settings with { AcceptedFingerprint = Fingerprint() });
        await Connect(_server.Settings);
    }

    [Fact]
    public async Task A_revoked_key_is_refused_whatever_is_said()
    {
        File.WriteAllText(_server.KnownHosts, $"@revoked * {_server.HostKey()}\n");
        FCtransException e = await Refused(_server.Settings with { AcceptUnknownHostKey = true, AcceptedFingerprint = Fingerprint() });
        Assert.Equal("HostKeyRevoked", e.ErrorId);
    }

    [Fact]
    public async Task A_key_that_only_the_systems_file_has_is_known_and_one_that_it_revokes_is_refused()
    {
        string system = _server.PathOf("ssh_known_hosts");
        KvmHostSettings settings = _server.Settings with { MoreKnownHostsFiles = [_server.PathOf("not there"), system] };
        File.WriteAllText(system, $"[127.0.0.1]:{_server.Port} {_server.HostKey()}\n");
        await Connect(settings);
        Assert.False(File.Exists(_server.KnownHosts));

        // The user's file has an old key, the system's the new one: known, as for ssh.
        _server.Know("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJj");
        await Connect(settings);
        _server.Know();
        File.WriteAllText(system, $"@revoked * {_server.HostKey()}\n");
        FCtransException e = await Refused(settings);
        Assert.Equal("HostKeyRevoked", e.ErrorId);
        Assert.Contains(system, e.Message);
    }

    [Fact]
    public async Task A_changed_key_is_told_with_the_file_that_has_the_other()
    {
        string system = _server.PathOf("ssh_known_hosts");
        File.WriteAllText(system, $"\n[127.0.0.1]:{_server.Port} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJj\n");
        FCtransException e = await Refused(_server.Settings with { MoreKnownHostsFiles = [system], AcceptUnknownHostKey = true });
        Assert.Equal("HostKeyChanged", e.ErrorId);
        Assert.Contains($"{system}, line 2", e.Message);
    }

    [Fact]
    public async Task Where_there_is_no_file_an_accepted_key_is_not_remembered()
    {
        KvmHostSettings settings = _server.Settings with { KnownHostsFile = "" };
        await Connect(settings with { AcceptUnknownHostKey = true });
        Assert.Equal("HostKeyUnknown", (await Refused(settings)).ErrorId);

        // Not tried: where it failed, the machine would have lost its /dev/null.
        Assert.False(KnownHostsFile.Remembers("/dev/null"));
    }

    [Theory]
    [InlineData("rsa")]
    [InlineData("ecdsa")]
    public async Task Of_several_host_keys_the_known_type_is_asked_for(string type)
    {
        _server.MakeKey("second", type);
        _server.RestartWithHostKeys("host_key", "second");
        _server.Know(_server.HostKey("second"));
        await Connect(_server.Settings);
    }

    [Fact]
    public async Task A_key_that_the_host_does_not_accept_is_told_as_such()
    {
        _server.Know();
        _server.MakeKey("stranger", "ed25519");
        FCtransException e = await Refused(_server.Settings with { KeyFile = _server.PathOf("stranger") });
        Assert.Equal("AuthenticationFailed", e.ErrorId);
    }

    [Fact]
    public async Task A_key_with_a_passphrase_needs_it()
    {
        _server.Know();
        _server.MakeKey("locked", "ed25519", "open sesame");
        File.AppendAllText(_server.PathOf("authorized"), File.ReadAllText(_server.PathOf("locked.pub")));
        KvmHostSettings settings = _server.Settings with { KeyFile = _server.PathOf("locked") };
        Assert.Equal("KeyFileUnusable", (await Refused(settings)).ErrorId);
        Assert.Equal("KeyFileUnusable", (await Refused(settings with { Password = "wrong" })).ErrorId);
        await Connect(settings with { Password = "open sesame" });
    }

    [Fact]
    public async Task A_file_that_is_no_key_or_not_there_is_told_as_such()
    {
        _server.Know();
        File.WriteAllText(_server.PathOf("junk"), "junk");
        Assert.Equal("KeyFileUnusable", (await Refused(_server.Settings with { KeyFile = _server.PathOf("junk") })).ErrorId);
        Assert.Equal("KeyFileUnusable", (await Refused(_server.Settings with { KeyFile = _server.PathOf("nowhere") })).ErrorId);
    }

    [Fact]
    public async Task A_host_that_is_not_there_is_unreachable()
    {
        _server.Stop();
        Assert.Equal("HostUnreachable", (await Refused(_server.Settings)).ErrorId);
        _server.Start(again: true);
        Assert.Equal("HostUnreachable", (await Refused(_server.Settings with { HostName = "no-such-host.invalid" })).ErrorId);
    }

    [Fact]
    public async Task A_connection_that_dropped_is_opened_again()
    {
        _server.Know();
        using var session = new SshSession(_server.Settings);
        Assert.Equal("1\n", (await session.RunAsync("echo 1", null, Limit, default)).Output);
        _server.Stop();
        Assert.True(SpinWait.SpinUntil(() => !session.IsConnected, Limit));
        _server.Start(again: true);
        Assert.Equal("2\n", (await session.RunAsync("echo 2", null, Limit, default)).Output);
    }

    private static TimeSpan Limit => TimeSpan.FromSeconds(20);

    private string Fingerprint() => KnownHostsFile.Fingerprint(Convert.FromBase64String(_server.HostKey().Split(' ')[1]));

    private static async Task Connect(KvmHostSettings settings)
    {
        using var session = new SshSession(settings);
        RemoteCommandResult result = await session.RunAsync("echo here", null, Limit, default);
        Assert.Equal("here\n", result.Output);
    }

    private static Task<FCtransException> Refused(KvmHostSettings settings) =>
        Assert.ThrowsAsync<FCtransException>(() => Connect(settings));
}
