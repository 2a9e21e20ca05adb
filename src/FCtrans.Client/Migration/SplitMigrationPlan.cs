using FCtrans.Contracts;

namespace FCtrans.Client;

/// <summary>
/// A request that was checked against what the hosts say now. Checking changes nothing anywhere, so whatever is wrong is said
/// before anything begins.
/// </summary>
public sealed class SplitMigrationPlan
{
    internal static readonly string[] SourceNeeds =
        ["userfaultfd", "userfaultfd-wp-async", "pagemap-scan", "ptrace", "pidfd-getfd"];

    internal static readonly string[] MainNeeds = ["userfaultfd", "ptrace", "pidfd-getfd", "ram-directory", "qemu"];
    internal static readonly string[] SubNeeds = ["ram-directory"];

    /// <summary>One less than pages can have copies at: a hybrid migration's source takes a place too.</summary>
    private const int MaxSubHostsOfCopies = 15;

    private SplitMigrationPlan(
        SplitMigrationRequest request, VmInfo vm, ulong mainMemoryBytes, ulong[] subRoomBytes, IReadOnlyList<string> warnings)
    {
        Request = request;
        Vm = vm;
        MainMemoryBytes = mainMemoryBytes;
        SubRoomBytes = subRoomBytes;
        Warnings = warnings;
    }

    /// <summary>What was asked for.</summary>
    public SplitMigrationRequest Request { get; }

    /// <summary>The VM as its host described it just now.</summary>
    public VmInfo Vm { get; }

    /// <summary>Bytes of the guest's memory that may stay on the main host; whole pages, at most the guest's size.</summary>
    public ulong MainMemoryBytes { get; }

    /// <summary>What each sub-host could take, in bytes.</summary>
    public IReadOnlyList<ulong> SubRoomBytes { get; }

    /// <summary>libvirt's description of the VM; null when libvirt does not run it.</summary>
    public LibvirtDomainDescription? Domain { get; private init; }

    /// <summary>What may go wrong later, for the user to read.</summary>
    public IReadOnlyList<string> Warnings { get; }

    /// <summary>Asks the hosts and checks everything that can be checked before anything is changed.</summary>
    /// <exception cref="FCtransException">The first thing found wrong.</exception>
    public static async Task<SplitMigrationPlan> MakeAsync(SplitMigrationRequest request, CancellationToken cancellation)
    {
        CheckHostsDiffer(request);

        Task<IReadOnlyList<VmInfo>> vms = request.Source.ListVmsAsync(cancellation);
        Task<HostInfo> source = request.Source.GetHostAsync(cancellation);
        Task<HostInfo> main = request.MainHost.GetHostAsync(cancellation);
        Task<HostInfo>[] subs = [.. request.SubHosts.Select(h => h.GetHostAsync(cancellation))];
        await Task.WhenAll([vms, source, main, .. subs]).ConfigureAwait(false);

        VmInfo vm = FindVm(request, vms.Result);
        if (!vm.CanSplit)
        {
            string reasons = string.Join(" ", vm.Obstacles.Select(o => $"{o.Reason.Trim()} {o.Remedy.Trim()}".Trim()));
            throw Failure.VmCannotBeSplit(vm.Name, reasons.Length > 0 ? reasons : "its host gives no reason.");
        }

        Require(request.Source, source.Result, "source", SourceNeeds);
        Require(request.MainHost, main.Result, "main host", MainNeeds);
        for (int i = 0; i < subs.Length; i++)
        {
            Require(request.SubHosts[i], subs[i].Result, "sub-host", SubNeeds);
        }

        foreach (KvmHostConnection host in request.SubHosts.Prepend(request.MainHost))
        {
            CheckDataAddress(host);
        }

        ulong mainBytes = CheckMainMemory(request, vm);
        foreach (HostCheck check in await CheckDestinationAsync(request, vm, source.Result, cancellation).ConfigureAwait(false))
        {
            if (check.Result == "failed")
            {
                throw Failure.HostCapabilityMissing(request.MainHost.Name, "main host", $"{check.Detail.Trim()} {check.Remedy.Trim()}");
            }
        }

        CheckMainRoom(request.MainHost, main.Result, mainBytes);
        ulong[] rooms = Rooms(request, subs.Select(s => s.Result));
        var warnings = new List<string>();
        CheckSubRoom(request, vm, mainBytes, rooms, warnings);
        LibvirtDomainDescription? domain = await CheckLibvirtAsync(request, vm, main.Result, warnings, cancellation).ConfigureAwait(false);
        return new SplitMigrationPlan(request, vm, mainBytes, rooms, warnings) { Domain = domain };
    }

    internal static void CheckDataAddress(KvmHostConnection host)
    {
        if (host.DataAddress.Length == 0)
        {
            throw Failure.DataAddressUnknown(host.Name);
        }
    }

    /// <summary>The main host's share, in bytes.</summary>
    internal static ulong CheckMainMemory(SplitMigrationRequest request, VmInfo vm)
    {
        ulong mainBytes = Math.Min(request.MainMemoryBytes(vm.MemoryBytes), vm.MemoryBytes) & ~4095UL;
        return mainBytes >= SplitMigrationRequest.MinMainMemoryBytes ? mainBytes : throw Failure.MainMemoryInvalid(
            ByteSize.Text(mainBytes),
            $"it must be at least {ByteSize.Text(SplitMigrationRequest.MinMainMemoryBytes)}");
    }

    /// <summary>What each sub-host could take, in bytes.</summary>
    internal static ulong[] Rooms(SplitMigrationRequest request, IEnumerable<HostInfo> subs) => [.. subs.Select((s, i) => Limited(request, i, Room(s)))];

    /// <summary>What the main host says to the command line. libvirt makes its own, and checks it itself.</summary>
    internal static async Task<IReadOnlyList<HostCheck>> CheckDestinationAsync(
        SplitMigrationRequest request, VmInfo vm, HostInfo source, CancellationToken cancellation) => vm.Manager == "libvirt" ? [] :
        await request.MainHost.CheckDestinationAsync(
            CommandLine(request, vm), vm.Accelerator == "kvm", source.ProcessorFlags, cancellation).ConfigureAwait(false);

    /// <summary>The user's, or the source's own.</summary>
    internal static IEnumerable<string> CommandLine(SplitMigrationRequest request, VmInfo vm) =>
        request.QemuCommandLine.Count > 0 ? request.QemuCommandLine : vm.CommandLine;

    /// <summary>A domain goes from libvirt to libvirt.</summary>
    internal static async Task<LibvirtDomainDescription?> CheckLibvirtAsync(
        SplitMigrationRequest request, VmInfo vm, HostInfo main, List<string> warnings, CancellationToken cancellation)
    {
        if (vm.Manager != "libvirt")
        {
            return null;
        }

        if (main.Capabilities.FirstOrDefault(c => c.Name == "libvirt") is not { Available: true } libvirt)
        {
            throw Failure.HostCapabilityMissing(
                request.MainHost.Name, "main host", $"'{vm.Name}' is a domain of libvirt, and libvirt is missing there. "
                + (main.Capabilities.FirstOrDefault(c => c.Name == "libvirt")?.Remedy ?? ""));
        }

        LibvirtDomainDescription domain = await request.Source.GetLibvirtDomainAsync(vm.Name, cancellation).ConfigureAwait(false);
        if (domain.Persistent && !request.MovePersistentDomain)
        {
            warnings.Add(
                $"'{vm.Name}' stays defined, shut off, in the libvirt of '{request.Source.Name}', and is transient on "
                + $"'{request.MainHost.Name}'. With -MovePersistentDomain its definition goes along.");
        }

        return domain;
    }

    /// <summary>What a sub-host may hold: what it has, or what the user gives of it.</summary>
    internal static ulong Limited(SplitMigrationRequest request, int sub, ulong room) =>
        sub < request.SubHostLimitBytes.Count && request.SubHostLimitBytes[sub] is > 0 and var limit ? Math.Min(limit, room) : room;

    internal static void CheckHostsDiffer(SplitMigrationRequest request)
    {
        if (request.SubHosts.Count > SplitMigrationRequest.MaxSubHosts)
        {
            throw Failure.TooManySubHosts(request.SubHosts.Count, SplitMigrationRequest.MaxSubHosts);
        }

        if (request.Copies > 1 && request.SubHosts.Count is < 2 or > MaxSubHostsOfCopies)
        {
            throw Failure.CopiesImpossible(request.SubHosts.Count, MaxSubHostsOfCopies);
        }

        if (SameHost(request.Source, request.MainHost))
        {
            throw Failure.MainHostIsSource(request.MainHost.Name);
        }

        KvmHostConnection[] all = [request.Source, request.MainHost, .. request.SubHosts];
        for (int i = 2; i < all.Length; i++)
        {
            for (int j = 0; j < i; j++)
            {
                if (SameHost(all[i], all[j]))
                {
                    throw Failure.HostNamedTwice(all[i].Name);
                }
            }
        }
    }

    /// <summary>One sshd is one host, whatever names it was connected by.</summary>
    public static bool SameHost(KvmHostConnection a, KvmHostConnection b) =>
        ReferenceEquals(a, b)
        || (a.Settings.Port == b.Settings.Port
            && ((string.Equals(a.Settings.ConnectAddress, b.Settings.ConnectAddress, StringComparison.OrdinalIgnoreCase)
                    && a.Settings.Jump?.ConnectAddress == b.Settings.Jump?.ConnectAddress)
                || (a.Info.ConnectionAddress.Length > 0 && a.Info.ConnectionAddress == b.Info.ConnectionAddress)));

    private static VmInfo FindVm(SplitMigrationRequest request, IReadOnlyList<VmInfo> vms) =>
        vms.FirstOrDefault(v => v.Name == request.VmName
            && (request.VmProcessId == 0 || v.ProcessId == request.VmProcessId))
        ?? throw Failure.VmNotFound(request.VmName, $"'{request.Source.Name}'");

    internal static void Require(KvmHostConnection host, HostInfo info, string part, string[] needs)
    {
        HostCapability[] missing = [.. info.Capabilities.Where(c => !c.Available && needs.Contains(c.Name))];
        if (missing.Length > 0)
        {
            throw Failure.HostCapabilityMissing(
                host.Name, part, string.Join(" ", missing.Select(c => $"{c.Name} is missing: {c.Detail.Trim()} {c.Remedy.Trim()}".Trim())));
        }
    }

    /// <summary>A tmpfs may promise more than there is memory, and the other way round.</summary>
    internal static ulong Room(HostInfo info) => Math.Min(info.RamDirectoryFreeBytes, info.MemoryAvailableBytes);

    internal static void CheckMainRoom(KvmHostConnection host, HostInfo info, ulong needed)
    {
        if (info.RamDirectoryFreeBytes < needed)
        {
            throw Failure.MainHostTooSmall(host.Name, needed, info.RamDirectoryFreeBytes, "in its RAM directory are");
        }

        if (info.MemoryAvailableBytes < needed)
        {
            throw Failure.MainHostTooSmall(host.Name, needed, info.MemoryAvailableBytes, "of its memory are");
        }
    }

    /// <summary>
    /// What is in use now must fit, or the migration could not end. What the guest may come to use later may be more than the
    /// sub-hosts have: that is the user's to decide, so it is a warning.
    /// </summary>
    internal static void CheckSubRoom(
        SplitMigrationRequest request, VmInfo vm, ulong mainBytes, ulong[] rooms, List<string> warnings)
    {
        ulong room = 0;
        foreach (ulong r in rooms)
        {
            room += r;
        }

        string names = request.SubHosts.Count == 0 ? "none" : string.Join(", ", request.SubHosts.Select(h => h.Name));
        ulong later = vm.MemoryBytes - mainBytes;
        if (request.SubHosts.Count == 0 && later > 0)
        {
            throw Failure.SubHostsTooSmall(names, later, 0);
        }

        ulong now = vm.ResidentBytes > mainBytes ? vm.ResidentBytes - mainBytes : 0;
        if (now > room)
        {
            throw Failure.SubHostsTooSmall(names, now, room);
        }

        later *= (ulong)request.Copies;
        if (later > room)
        {
            warnings.Add(
                $"If '{vm.Name}' comes to use all its memory, {ByteSize.Text(later)} must lie on the sub-hosts ({names}), "
                + $"which have {ByteSize.Text(room)} free now.");
        }
    }
}
