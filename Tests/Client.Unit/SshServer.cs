using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace FCtrans.Client.Unit.Tests;

/// <summary>
/// A real sshd on a loopback port, with keys, home and PATH of its own: `id -u` says 1000 there, so that agents are put under
/// its home. All of it is gone after Dispose.
/// </summary>
public sealed class SshServer : IDisposable
{
    private Process _sshd;

    public SshServer()
    {
        Directory.CreateDirectory("/run/sshd");
        Home = Directory.CreateTempSubdirectory("fctrans-ssh-").FullName;
        Directory.CreateDirectory(PathOf("bin"));
        File.WriteAllText(PathOf("bin/id"), "#!/bin/sh\necho 1000\n");
        File.SetUnixFileMode(PathOf("bin/id"), (UnixFileMode)0b111_101_101);
        MakeKey("host_key", "ed25519");
        MakeKey("user_key", "ed25519");
        File.Copy(PathOf("user_key.pub"), PathOf("authorized"));
        using (var probe = new TcpListener(IPAddress.Loopback, 0))
        {
            probe.Start();
            Port = ((IPEndPoint)probe.LocalEndpoint).Port;
        }

        WriteConfiguration("host_key");
        _sshd = Start();
    }

    public string Home { get; }

    public int Port { get; }

    public string KnownHosts => PathOf("known_hosts");

    public string PathOf(string name) => Path.Combine(Home, name);

    /// <summary>The host's public key as a known-hosts line has it.</summary>
    public string HostKey(string name = "host_key") => string.Join(' ', File.ReadAllText(PathOf(name + ".pub")).Split(' ')[..2]);

    public void Know(string? key = null) => File.WriteAllText(KnownHosts, $"[127.0.0.1]:{Port} {key ?? HostKey()}\n");

    public KvmHostSettings Settings => new()
    {
        HostName = "127.0.0.1",
        Name = Path.GetFileName(Home),
        Port = Port,
        UserName = Environment.UserName,
        KeyFile = PathOf("user_key"),
        KnownHostsFile = KnownHosts,
        Timeout = TimeSpan.FromSeconds(20),
    };

    public void MakeKey(string name, string type, string passphrase = "") =>
        Run("ssh-keygen", "-q", "-t", type, "-N", passphrase, "-f", PathOf(name));

    public void RestartWithHostKeys(params string[] names)
    {
        Stop();
        WriteConfiguration(names);
        _sshd = Start();
    }

    /// <summary>Ends the server and every session of it, as a power cut would.</summary>
    public void Stop()
    {
        if (!_sshd.HasExited)
        {
            _sshd.Kill(entireProcessTree: true);
            _sshd.WaitForExit();
        }

        _sshd.Dispose();
    }

    public void Start(bool again) => _sshd = again ? Start() : _sshd;

    public void Dispose()
    {
        Stop();
        Directory.Delete(Home, recursive: true);
    }

    private static void Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(program, arguments);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }

    private void WriteConfiguration(params string[] hostKeys) => File.WriteAllLines(PathOf("sshd_config"),
    [
        $"Port {Port}", "ListenAddress 127.0.0.1", $"AuthorizedKeysFile {PathOf("authorized")}", "PermitRootLogin yes",
        "StrictModes no", "UsePAM no", "PidFile none", "PasswordAuthentication no", "LogLevel QUIET",
        $"SetEnv HOME={Home} PATH={PathOf("bin")}:{Environment.GetEnvironmentVariable("PATH")}",
        .. hostKeys.Select(k => $"HostKey {PathOf(k)}"),
    ]);

    private Process Start()
    {
        Process process = Process.Start(new ProcessStartInfo("/usr/sbin/sshd", ["-D", "-e", "-f", PathOf("sshd_config")])
        {
            RedirectStandardError = true,
        })!;
        var patience = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                using var client = new TcpClient();
                client.Connect(IPAddress.Loopback, Port);
                return process;
            }
            catch (SocketException) when (patience.Elapsed < TimeSpan.FromSeconds(20) && !process.HasExited)
            {
                Thread.Yield();
            }
        }
    }
}
