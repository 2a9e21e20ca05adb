using System.Diagnostics;
using System.Management.Automation;
using System.Net;
using System.Reflection;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>
/// Connect-KvmHost: opens an SSH connection to hosts, checks their keys, brings the agent there when it is missing or another
/// one, and gives the hosts. Several hosts are connected at once.
/// </summary>
[Cmdlet(VerbsCommunications.Connect, "KvmHost", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low)]
[OutputType(typeof(KvmHost))]
public sealed class ConnectKvmHostCommand : FCtransCmdlet
{
    private readonly List<string> _names = [];

    /// <summary>Names or addresses of the hosts.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("ComputerName")]
    [ArgumentCompleter(typeof(KnownHostCompleter))]
    [ValidateNotNullOrEmpty]
    public string[] HostName { get; set; } = [];

    /// <summary>What to call the host; for one host only.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Name { get; set; }

    /// <summary>The port of sshd. Default: as the SSH configuration says, else 22.</summary>
    [Parameter]
    [ValidateRange(1, 65535)]
    public int Port { get; set; }

    /// <summary>The user on the host. Default: the user of the credential, else as the SSH configuration says, else root (not your own name, as with ssh).</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? UserName { get; set; }

    /// <summary>Start the agent by sudo, for a user who is not root. sudo must not ask for a password.</summary>
    [Parameter]
    public SwitchParameter Sudo { get; set; }

    /// <summary>A private key. Default: those of the SSH configuration, of the SSH agent, and the usual ones in ~/.ssh.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? KeyFile { get; set; }

    /// <summary>User and password; with -KeyFile, the password is the key's passphrase.</summary>
    [Parameter]
    [Credential]
    public PSCredential? Credential { get; set; }

    /// <summary>The SSH configuration; none: do not use any. Default: ~/.ssh/config, and after it /etc/ssh/ssh_config.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? SshConfigFile { get; set; }

    /// <summary>
    /// The one file that host keys are checked against and remembered in. Default: those of the SSH configuration, else ~/.ssh/known_hosts
    /// and known_hosts2, and after them /etc/ssh/ssh_known_hosts and ssh_known_hosts2. New keys go to the first.
    /// </summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? KnownHostsFile { get; set; }

    /// <summary>Accept and remember the key of a host that is not known yet. A changed key is refused all the same.</summary>
    [Parameter]
    public SwitchParameter AcceptHostKey { get; set; }

    /// <summary>Accept and remember exactly this key (SHA256:…), in place of another if need be.</summary>
    [Parameter]
    [ValidatePattern("^SHA256:[A-Za-z0-9+/]{43}$")]
    public string? HostKeyFingerprint { get; set; }

    /// <summary>Where other hosts send guest memory for this one, if not to the address of the SSH connection; for one host only.</summary>
    [Parameter]
    [ValidateNotNull]
    public IPAddress? DataAddress { get; set; }

    /// <summary>
    /// Have the workers of split VMs that another version of the agent runs there go on under this version. Their VMs run on; who needs a page
    /// of another host meanwhile waits some tenths of a second.
    /// </summary>
    [Parameter]
    public SwitchParameter UpgradeWorker { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord() => _names.AddRange(HostName);

    /// <inheritdoc/>
    protected override void EndProcessing()
    {
        if (_names.Count > 1 && (Name is not null || DataAddress is not null))
        {
            ThrowTerminatingError(new ErrorRecord(
                new ArgumentException("-Name and -DataAddress are for one host at a time."), "OneHostOnly",
                ErrorCategory.InvalidArgument, _names.ToArray()));
        }

        AgentPackage package;
        SshConfigFile config;
        try
        {
            config = SshConfigFile switch
            {
                null => Client.SshConfigFile.ReadDefault(),
                "none" => Client.SshConfigFile.Read(""),
                _ => Client.SshConfigFile.Read(FilePath(SshConfigFile)!),
            };
            package = AgentPackage.Load(
                Path.Combine(ModuleDirectory(), "agent", "linux-x64", "fctrans-agent"), ModuleVersion());
        }
        catch (FCtransException e)
        {
            ThrowTerminatingError(Errors.Record(e, null));
            return;
        }

        var all = new List<KvmHostSettings>();
        foreach (string name in _names.Distinct(StringComparer.OrdinalIgnoreCase)
            .Where(name => ShouldProcess(name, "Connect, and put the agent there if it is missing")))
        {
            ForItem(name, () => all.Add(SshSettings.Resolve(SettingsFor(name), config)));
        }

        Stopwatch watch = Stopwatch.StartNew();
        (KvmHostSettings Settings, Task<KvmHostConnection> Task)[] opened = Await(async (post, stop) =>
        {
            using var progress = new ConnectProgress(all, record => post(() => WriteProgress(record)));
            async Task<KvmHostConnection> OpenAsync(KvmHostSettings settings, int index)
            {
                bool connected = false;
                try
                {
                    KvmHostConnection connection = await KvmHostConnection
                        .OpenAsync(settings, package, stop, (what, share) => progress.Step(index, what, share)).ConfigureAwait(false);
                    connected = true;
                    return connection;
                }
                finally
                {
                    progress.Ended(index, connected);
                }
            }

            (KvmHostSettings, Task<KvmHostConnection> Task)[] opening =
                [.. all.Select((s, index) => (s, Task.Run(() => OpenAsync(s, index), CancellationToken.None)))];
            await Task.WhenAll(opening.Select(o => (Task)o.Task)).ContinueWith(_ => { }, TaskScheduler.Default)
                .ConfigureAwait(false);
            if (stop.IsCancellationRequested)
            {
                foreach ((_, Task<KvmHostConnection> task) in opening.Where(o => o.Task.IsCompletedSuccessfully))
                {
                    task.Result.Dispose();
                }
            }

            stop.ThrowIfCancellationRequested();
            return opening;
        });

        // All are noted before one is written: a pipeline that ends after the first must not lose the others.
        KvmHost?[] hosts = [.. opened.Select(o => o.Task.IsCompletedSuccessfully ? new KvmHost(o.Task.Result) : null)];
        foreach (KvmHost host in hosts.OfType<KvmHost>())
        {
            HostRegistry.Add(host)?.Disconnect();
        }

        for (int i = 0; i < opened.Length; i++)
        {
            if (hosts[i] is { } host)
            {
                WriteVerbose($"{host.Name}: connected to {host.Connection.Settings.Address}:{host.Port} as {host.UserName}, host key "
                    + $"{host.HostKeyFingerprint}, agent {host.AgentPath}; after {watch.Elapsed.TotalSeconds:0.0} s.");
                WriteObject(UpToDate(host));
            }
            else
            {
                (KvmHostSettings settings, Task<KvmHostConnection> task) = opened[i];
                ForItem(settings.Name ?? settings.HostName, () => task.GetAwaiter().GetResult());
            }
        }
    }

    /// <summary>The host, its workers brought under this agent when that is wanted.</summary>
    private KvmHost UpToDate(KvmHost host)
    {
        if (host.OutdatedWorkers == 0)
        {
            return host;
        }

        string workers = host.OutdatedWorkers == 1 ? "1 worker of a split VM" : $"{host.OutdatedWorkers} workers of split VMs";
        if (!UpgradeWorker)
        {
            WriteWarning($"{host.Name}: {workers} on this host still run another version of the agent. Connect-KvmHost -UpgradeWorker brings them under this one.");
            return host;
        }

        if (!ShouldProcess(host.Name, $"Have {workers} go on under this agent"))
        {
            return host;
        }

        ForItem(host.Name, () =>
        {
            foreach (WorkerSpec spec in Await(host.Connection.UpgradeWorkersAsync))
            {
                WriteVerbose($"{host.Name}: the {spec.Role} worker of '{spec.VmName}' goes on under {host.AgentPath}.");
            }

            Await(host.Connection.GetHostAsync);
        });
        return new KvmHost(host.Connection);
    }

    private static string ModuleDirectory() =>
        Path.GetDirectoryName(Path.GetDirectoryName(typeof(ConnectKvmHostCommand).Assembly.Location))!;

    private static string ModuleVersion() =>
        typeof(ConnectKvmHostCommand).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!
            .InformationalVersion.Split('+')[0];

    private KvmHostSettings SettingsFor(string hostName) => new()
    {
        HostName = hostName,
        Name = Name,
        Port = Port,
        UserName = UserName ?? Credential?.UserName ?? "",
        Sudo = Sudo,
        KeyFile = FilePath(KeyFile),
        Password = Credential?.GetNetworkCredential().Password,
        KnownHostsFile = FilePath(KnownHostsFile) ?? "",
        AcceptUnknownHostKey = AcceptHostKey,
        AcceptedFingerprint = HostKeyFingerprint,
        DataAddress = DataAddress?.ToString(),
    };

    /// <summary>As PowerShell understands paths: relative to its own location, with ~.</summary>
    private string? FilePath(string? path) =>
        path is null ? null : SessionState.Path.GetUnresolvedProviderPathFromPSPath(path);
}
