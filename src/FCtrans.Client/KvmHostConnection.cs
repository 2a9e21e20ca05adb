using System.Runtime.CompilerServices;
using FCtrans.Contracts;
using Grpc.Core;

namespace FCtrans.Client;

/// <summary>
/// A host that FCtrans can use: an SSH connection, the agent on it, and calls to that agent. Safe for use by several threads.
/// A connection that dropped is opened again by the next call.
/// </summary>
public sealed class KvmHostConnection : IDisposable
{
    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(120);

    private readonly SshSession _session;
    private readonly SshRpcChannel _channel;
    private readonly HostAgent.HostAgentClient _agent;
    private readonly string _agentPath;

    private KvmHostConnection(KvmHostSettings settings, SshSession session, string agentPath)
    {
        Settings = settings;
        _session = session;
        _agentPath = agentPath;
        _channel = new SshRpcChannel(session, Name, AgentDeployment.StartCommand(agentPath, settings.Sudo));
        _agent = new HostAgent.HostAgentClient(_channel.Invoker);
        Info = new HostInfo();
    }

    /// <summary>How it was connected.</summary>
    public KvmHostSettings Settings { get; }

    /// <summary>The name in messages: what the user calls the host.</summary>
    public string Name => Settings.Name ?? Settings.HostName;

    /// <summary>What the host said of itself last.</summary>
    public HostInfo Info { get; private set; }

    /// <summary>The agent's path on the host.</summary>
    public string AgentPath => _agentPath;

    /// <summary>Whether the SSH connection stands at this moment.</summary>
    public bool IsConnected => _session.IsConnected;

    /// <summary>Whether it was closed for good.</summary>
    public bool IsDisposed { get; private set; }

    /// <summary>The host's key, as <c>SHA256:…</c>.</summary>
    public string HostKeyFingerprint => _session.HostKeyFingerprint;

    /// <summary>Where the other hosts send guest memory for this one; empty when it is not known.</summary>
    public string DataAddress => Settings.DataAddress ?? Info.ConnectionAddress;

    /// <summary>Connects, checks the host's key, brings the agent if need be, and asks the host about itself.</summary>
    /// <param name="settings">How to connect.</param>
    /// <param name="package">The agent to bring.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <param name="step">Is told, on some thread, what is done, and how much of it (0 to 1) where that is known.</param>
    /// <exception cref="FCtransException">
    /// HostUnreachable, HostKeyUnknown, HostKeyChanged, HostKeyRevoked, AuthenticationFailed, NoCredential, KeyFileUnusable,
    /// HostUnsupported, AgentUploadFailed, AgentStartFailed, HostTimeout.
    /// </exception>
    public static async Task<KvmHostConnection> OpenAsync(
        KvmHostSettings settings, AgentPackage package, CancellationToken cancellation, Action<string, double?>? step = null)
    {
        var session = new SshSession(settings);
        KvmHostConnection? connection = null;
        try
        {
            string name = settings.Name ?? settings.HostName;
            step?.Invoke("opening the SSH connection", null);
            using (HostCalls.Measurement connecting = HostCalls.Begin(name, "the SSH connection"))
            {
                connecting.Answered(await session.ClientAsync(cancellation).ConfigureAwait(false));
            }

            string path;
            step?.Invoke("looking for the agent", null);
            using (HostCalls.Measurement deploying = HostCalls.Begin(name, "having the agent there"))
            {
                path = deploying.Answered(
                    await AgentDeployment.EnsureAsync(session, settings, package, sent => step?.Invoke("uploading the agent", sent), cancellation)
                        .ConfigureAwait(false));
            }

            step?.Invoke("starting the agent", null);
            connection = new KvmHostConnection(settings, session, path);
            await connection.GetHostAsync(cancellation).ConfigureAwait(false);
            return connection;
        }
        catch
        {
            connection?.Dispose();
            session.Dispose();
            throw;
        }
    }

    /// <summary>Asks the host about itself.</summary>
    public async Task<HostInfo> GetHostAsync(CancellationToken cancellation) => Info = await CallAsync(
        "the host's properties", o => _agent.GetHostAsync(new GetHostRequest(), o), cancellation).ConfigureAwait(false);

    /// <summary>Checks what FCtrans needs of the host.</summary>
    public async Task<IReadOnlyList<HostCheck>> CheckHostAsync(CancellationToken cancellation) => (await CallAsync(
        "the host's checks", o => _agent.CheckHostAsync(new CheckHostRequest { DataAddress = DataAddress }, o), cancellation)
        .ConfigureAwait(false)).Checks;

    /// <summary>Checks whether a VM with this command line could be received here.</summary>
    /// <param name="commandLine">Of its QEMU, as at the source or as the user wants it.</param>
    /// <param name="kvm">Whether it runs under KVM.</param>
    /// <param name="processorFlags">Of the source's host.</param>
    /// <param name="cancellation">Gives up.</param>
    public async Task<IReadOnlyList<HostCheck>> CheckDestinationAsync(
        IEnumerable<string> commandLine, bool kvm, IEnumerable<string> processorFlags, CancellationToken cancellation)
    {
        var request = new CheckDestinationRequest { Kvm = kvm };
        request.CommandLine.AddRange(commandLine);
        request.ProcessorFlags.AddRange(processorFlags);
        return (await CallAsync(
            "whether the VM can be received", o => _agent.CheckDestinationAsync(request, o), cancellation).ConfigureAwait(false)).Checks;
    }

    /// <summary>Opens a port for a probe and gives its number; the port is closed when the enumeration ends.</summary>
    /// <exception cref="FCtransException">DataPortRefused.</exception>
    internal IAsyncEnumerable<ListeningForProbe> ListenForProbeAsync(ListenForProbeRequest request, CancellationToken cancellation) => StreamAsync(
        "opening a port for a probe", o => _agent.ListenForProbe(request, o), Settings.Timeout, cancellation,
        e => e.StatusCode is StatusCode.FailedPrecondition or StatusCode.InvalidArgument ? Failure.DataPortRefused(Name, e.Status.Detail, e) : null);

    /// <summary>Connects from this host to a port that another has opened for it.</summary>
    internal Task<ProbeReply> ProbeAsync(ProbeRequest request, CancellationToken cancellation) => CallAsync(
        "reaching another host", o => _agent.ProbeAsync(request, o), cancellation);

    /// <summary>Removes all that FCtrans has on the host. The connection is of no use afterwards.</summary>
    /// <returns>What is left or could not be looked at, and what to do about it; empty: nothing.</returns>
    /// <exception cref="FCtransException">AgentInUse: a VM depends on it; nothing was removed.</exception>
    public Task<string> UninstallAsync(CancellationToken cancellation) => AgentRemoval.RunAsync(this, _session, cancellation);

    /// <summary>The VMs that run on the host.</summary>
    public async Task<IReadOnlyList<VmInfo>> ListVmsAsync(CancellationToken cancellation) => (await CallAsync(
        "the host's VMs", o => _agent.ListVmsAsync(new ListVmsRequest(), o), cancellation).ConfigureAwait(false)).Vms;

    /// <summary>Looks once how much of a VM's memory is in use.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmMemoryUnreadable.</exception>
    public Task<UnusedMemory> GetUnusedMemoryAsync(string vm, CancellationToken cancellation) => _channel.CallAsync(
        "a VM's unused memory", o => _agent.GetUnusedMemoryAsync(new GetUnusedMemoryRequest { Vm = vm }, o), s_startLimit,
        cancellation, e => MemoryFailure(vm, e));

    /// <summary>The same again and again, an answer at once and then one at the end of each interval.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmMemoryUnreadable.</exception>
    public IAsyncEnumerable<UnusedMemory> WatchUnusedMemoryAsync(WatchUnusedMemoryRequest request, CancellationToken cancellation) =>
        MemoryStreamAsync(request.Vm, "watching a VM's unused memory", o => _agent.WatchUnusedMemory(request, o), cancellation);

    /// <summary>What each part of a VM's memory is and where it lies.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmMemoryUnreadable.</exception>
    public IAsyncEnumerable<MemoryMapPart> GetMemoryMapAsync(GetMemoryMapRequest request, CancellationToken cancellation) =>
        MemoryStreamAsync(request.Vm, "drawing a VM's memory map", o => _agent.GetMemoryMap(request, o), cancellation);

    /// <summary>Gives free memory of a running guest back to the host; one answer a turn.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmMemoryUnreadable.</exception>
    public IAsyncEnumerable<OptimizedMemory> OptimizeMemoryAsync(OptimizeMemoryRequest request, CancellationToken cancellation) =>
        MemoryStreamAsync(request.Vm, "giving free memory back", o => _agent.OptimizeMemory(request, o), cancellation);

    private IAsyncEnumerable<T> MemoryStreamAsync<T>(
        string vm, string what, Func<CallOptions, AsyncServerStreamingCall<T>> start, CancellationToken cancellation) =>
        StreamAsync(what, start, s_startLimit, cancellation, e => MemoryFailure(vm, e));

    private FCtransException? MemoryFailure(string vm, RpcException e) => e.StatusCode switch
    {
        StatusCode.NotFound => Failure.VmNotFound(vm, $"'{Name}'"),
        StatusCode.FailedPrecondition => Failure.VmMemoryUnreadable(vm, e.Status.Detail, e),
        _ => null,
    };

    /// <summary>The answers of a call that gives several; what <paramref name="translate"/> has no failure for, the channel has.</summary>
    private async IAsyncEnumerable<T> StreamAsync<T>(
        string what, Func<CallOptions, AsyncServerStreamingCall<T>> start, TimeSpan limit, [EnumeratorCancellation] CancellationToken cancellation,
        Func<RpcException, FCtransException?> translate)
    {
        using HostCalls.Measurement measurement = HostCalls.Begin(Name, what);
        using AsyncServerStreamingCall<T> call = start(new CallOptions(cancellationToken: cancellation));
        while (true)
        {
            try
            {
                if (!await call.ResponseStream.MoveNext(cancellation).ConfigureAwait(false))
                {
                    yield break;
                }

                measurement.Answered(true);
            }
            catch (RpcException e) when (e.StatusCode == StatusCode.Cancelled && cancellation.IsCancellationRequested)
            {
                throw new OperationCanceledException(cancellation);
            }
            catch (RpcException e)
            {
                throw translate(e) ?? await _channel.TranslateAsync(e, what, limit).ConfigureAwait(false);
            }

            yield return call.ResponseStream.Current;
        }
    }

    /// <summary>The description of a VM that the host's libvirt runs.</summary>
    /// <exception cref="FCtransException">VmCannotBeSplit: libvirt does not give it.</exception>
    public Task<LibvirtDomainDescription> GetLibvirtDomainAsync(string vm, CancellationToken cancellation) => _channel.CallAsync(
        "a domain's description", o => _agent.GetLibvirtDomainAsync(new GetLibvirtDomainRequest { Vm = vm }, o), Settings.Timeout,
        cancellation, e => e.StatusCode switch
        {
            StatusCode.NotFound => Failure.VmNotFound(vm, $"'{Name}'"),
            StatusCode.FailedPrecondition => Failure.VmCannotBeSplit(vm, e.Status.Detail),
            _ => null,
        });

    /// <summary>Makes a worker's directory and key pair.</summary>
    public Task<PreparedWorker> PrepareWorkerAsync(string splitId, WorkerRole role, CancellationToken cancellation) => CallAsync(
        "preparing a worker",
        o => _agent.PrepareWorkerAsync(new PrepareWorkerRequest { SplitId = splitId, Role = role }, o), cancellation);

    /// <summary>Starts a prepared worker; returns once it listens (main, sub) or runs (source).</summary>
    public Task<StartedWorker> StartWorkerAsync(WorkerSpec spec, CancellationToken cancellation) => _channel.CallAsync(
        "starting a worker", o => _agent.StartWorkerAsync(new StartWorkerRequest { Spec = spec }, o), s_startLimit, cancellation);

    /// <summary>
    /// All workers on the host: the figures of now of those that run, of their end for the others. One that does not answer
    /// its agent has what it last left on disk, if anything.
    /// </summary>
    public async Task<IReadOnlyList<WorkerSummary>> ListWorkersAsync(CancellationToken cancellation) => (await CallAsync(
        "the host's workers", o => _agent.ListWorkersAsync(new ListWorkersRequest(), o), cancellation)
        .ConfigureAwait(false)).Workers;

    /// <summary>Ends a worker and removes what it kept. Refused while a VM depends on it, unless forced.</summary>
    public Task RemoveWorkerAsync(string splitId, WorkerRole role, bool force, CancellationToken cancellation) =>
        _channel.CallAsync(
            "removing a worker",
            o => _agent.RemoveWorkerAsync(new RemoveWorkerRequest { SplitId = splitId, Role = role, Force = force }, o),
            s_startLimit, cancellation,
            e => e.StatusCode == StatusCode.NotFound ? Failure.MigrationNotFound($"{splitId} on '{Name}'") : null);

    /// <summary>Has the workers that another agent's program runs go on under this one; returns what they are for.</summary>
    public async Task<IReadOnlyList<WorkerSpec>> UpgradeWorkersAsync(CancellationToken cancellation) => (await _channel.CallAsync(
        "upgrading the host's workers", o => _agent.UpgradeWorkersAsync(new UpgradeWorkersRequest(), o), s_startLimit, cancellation)
        .ConfigureAwait(false)).Upgraded;

    /// <summary>One worker on this host. Nothing is sent before its first call.</summary>
    /// <exception cref="ArgumentException">What is given names no worker.</exception>
    public WorkerConnection ConnectWorker(string splitId, WorkerRole role, string vm) => new(_channel, splitId, role, vm);

    /// <inheritdoc/>
    public void Dispose()
    {
        IsDisposed = true;
        _channel.Dispose();
        _session.Dispose();
    }

    private Task<T> CallAsync<T>(string what, Func<CallOptions, AsyncUnaryCall<T>> call, CancellationToken cancellation) =>
        _channel.CallAsync(what, call, Settings.Timeout, cancellation);
}
