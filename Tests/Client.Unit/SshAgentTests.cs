using System.Diagnostics;

namespace FCtrans.Client.Unit.Tests;

/// <summary>A real ssh-agent, and real jump hosts.</summary>
public sealed class SshAgentTests : IDisposable
{
    private readonly SshServer _server = new();
    private readonly List<Process> _agents = [];

    public void Dispose()
    {
        foreach (Process agent in _agents)
        {
            agent.Kill();
            agent.Dispose();
        }

        _server.Dispose();
    }

    [Theory]
    [InlineData("ed25519")]
    [InlineData("rsa")]
    [InlineData("ecdsa")]
    public async Task A_key_with_a_passphrase_is_used_through_the_agent(string type)
    {
        _server.Know();
        _server.MakeKey("guarded", type);
        File.AppendAllText(_server.PathOf("authorized"), File.ReadAllText(_server.PathOf("guarded.pub")));
        string socket = StartAgent("guarded");
        File.Delete(_server.PathOf("guarded"));
        await Connect(_server.Settings with { KeyFile = null, IdentityAgent = socket, IdentitiesOnly = false });
    }

    [Fact]
    public async Task Of_the_agents_keys_only_the_configured_one_is_shown_when_the_configuration_says_so()
    {
        _server.Know();
        _server.MakeKey("other", "ed25519");
        string socket = StartAgent("other", "user_key");
        KvmHostSettings settings = _server.Settings with { KeyFile = null, IdentityAgent = socket, IdentitiesOnly = true };
        await Connect(settings with { IdentityFiles = [_server.PathOf("user_key")] });
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(() => Connect(settings with { IdentityFiles = [_server.PathOf("other")] }));
        Assert.Equal("AuthenticationFailed", e.ErrorId);
    }

    [Fact]
    public async Task Without_any_key_the_message_says_where_was_looked()
    {
        _server.Know();
        KvmHostSettings settings = _server.Settings with
        {
            KeyFile = null, IdentityAgent = "none", IdentitiesOnly = true, IdentityFiles = [_server.PathOf("nowhere")],
        };
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(() => Connect(settings));
        Assert.Equal("NoCredential", e.ErrorId);
        Assert.Contains("nowhere", e.Message);
    }

    [Fact]
    public async Task A_host_is_reached_through_another_and_again_when_that_one_was_away()
    {
        using var jump = new SshServer();
        jump.Know();
        _server.Know();
        using var session = new SshSession(_server.Settings with { Jump = jump.Settings });
        Assert.Contains("through", await Run(session));
        jump.Stop();
        jump.Start(again: true);
        Assert.Contains("through", await RunAgain(session));
    }

    [Fact]
    public async Task A_jump_host_that_is_not_trusted_stops_everything()
    {
        using var jump = new SshServer();
        _server.Know();
        using var session = new SshSession(_server.Settings with { Jump = jump.Settings });
        FCtransException e = await Assert.ThrowsAsync<FCtransException>(() => Run(session));
        Assert.Equal("HostKeyUnknown", e.ErrorId);
    }

    private static async Task Connect(KvmHostSettings settings)
    {
        using var session = new SshSession(settings);
        await Run(session);
    }

    private static async Task<string> Run(SshSession session) =>
        (await session.RunAsync("echo through", null, TimeSpan.FromSeconds(20), CancellationToken.None)).Output;

    /// <summary>The first use may still meet the connection that broke.</summary>
    private static async Task<string> RunAgain(SshSession session)
    {
        var patience = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                return await Run(session);
            }
            catch (FCtransException) when (patience.Elapsed < TimeSpan.FromSeconds(30))
            {
                await Task.Yield();
            }
        }
    }

    private string StartAgent(params string[] keys)
    {
        string socket = _server.PathOf($"agent{_agents.Count}");
        _agents.Add(Process.Start(new ProcessStartInfo("ssh-agent", ["-D", "-a", socket]) { RedirectStandardOutput = true })!);
        Assert.True(SpinWait.SpinUntil(() => File.Exists(socket), TimeSpan.FromSeconds(20)));
        foreach (string key in keys)
        {
            var add = new ProcessStartInfo("ssh-add", ["-q", _server.PathOf(key)]) { RedirectStandardError = true };
            add.Environment["SSH_AUTH_SOCK"] = socket;
            using Process process = Process.Start(add)!;
            process.WaitForExit();
            Assert.Equal(0, process.ExitCode);
        }

        return socket;
    }
}
