using FCtrans.Contracts;

namespace FCtrans.Client;

/// <summary>One precondition of a split migration on one host.</summary>
/// <param name="Host">The host's name.</param>
/// <param name="Name">What was checked.</param>
/// <param name="Passed">Whether it holds.</param>
/// <param name="Detail">What was seen.</param>
/// <param name="Remedy">What to do if it does not hold; else empty.</param>
public sealed record SplitMigrationCheck(string Host, string Name, bool Passed, string Detail, string Remedy);

/// <summary>What a split migration would do, without doing any of it: every precondition, and what would go where.</summary>
public sealed class SplitMigrationForecast
{
    // Of the main host's share, what is filled before pages are known to be written often.
    private const double FirstFill = 0.80;

    // What QEMU's device state and the last round take when little is left.
    private const double LeastDowntimeMilliseconds = 30;

    private readonly List<SplitMigrationCheck> _checks = [];

    private SplitMigrationForecast(SplitMigrationRequest request, int subHosts)
    {
        Request = request;
        BytesToSubHosts = new ulong[subHosts];
    }

    /// <summary>What was asked for.</summary>
    public SplitMigrationRequest Request { get; }

    /// <summary>All that was checked, in the order of source, main host, sub-hosts.</summary>
    public IReadOnlyList<SplitMigrationCheck> Checks => _checks;

    /// <summary>Whether Start-SplitMigration would begin.</summary>
    public bool CanMigrate => _checks.All(c => c.Passed);

    /// <summary>The guest's memory; 0 when the VM was not found.</summary>
    public ulong GuestMemoryBytes { get; private set; }

    /// <summary>What the guest uses now, and so what would be sent at least.</summary>
    public ulong UsedBytes { get; private set; }

    /// <summary>How that is known: buddy, never-touched-only, off.</summary>
    public string UnusedMethod { get; private set; } = "";

    /// <summary>Guest memory that would go to the main host.</summary>
    public ulong BytesToMainHost { get; private set; }

    /// <summary>Guest memory that would go to each sub-host.</summary>
    public IReadOnlyList<ulong> BytesToSubHosts { get; private set; }

    /// <summary>For all that is used, once, at <see cref="AssumedBytesPerSecond"/>; what the guest writes meanwhile comes on top.</summary>
    public double ExpectedSeconds => AssumedBytesPerSecond > 0 ? UsedBytes / AssumedBytesPerSecond : 0;

    /// <summary>The user's bandwidth limit, or what a link of 10 Gbit/s carries.</summary>
    public double AssumedBytesPerSecond => Request.BandwidthLimitBytesPerSecond > 0 ? Request.BandwidthLimitBytesPerSecond : 1.25e9;

    /// <summary>From an idle guest's to what is aimed at; a hybrid migration does not wait for more.</summary>
    public (double Least, double Most) ExpectedDowntimeMilliseconds => (LeastDowntimeMilliseconds, Request.MaxDowntime.TotalMilliseconds);

    /// <summary>Asks the hosts; changes nothing on any.</summary>
    /// <exception cref="FCtransException">A host can't be asked.</exception>
    public static async Task<SplitMigrationForecast> MakeAsync(SplitMigrationRequest request, CancellationToken cancellation)
    {
        var forecast = new SplitMigrationForecast(request, request.SubHosts.Count);
        Task<IReadOnlyList<VmInfo>> vms = request.Source.ListVmsAsync(cancellation);
        Task<HostInfo> source = request.Source.GetHostAsync(cancellation);
        Task<HostInfo> main = request.MainHost.GetHostAsync(cancellation);
        Task<HostInfo>[] subs = [.. request.SubHosts.Select(h => h.GetHostAsync(cancellation))];
        await Task.WhenAll([vms, source, main, .. subs]).ConfigureAwait(false);

        forecast.CheckCapabilities(request.Source.Name, source.Result, SplitMigrationPlan.SourceNeeds);
        VmInfo? vm = vms.Result.FirstOrDefault(v => v.Name == request.VmName && (request.VmProcessId == 0 || v.ProcessId == request.VmProcessId));
        forecast.CheckVm(vm);
        forecast.CheckCapabilities(request.MainHost.Name, main.Result, SplitMigrationPlan.MainNeeds);
        for (int i = 0; i < subs.Length; i++)
        {
            forecast.CheckCapabilities(request.SubHosts[i].Name, subs[i].Result, SplitMigrationPlan.SubNeeds);
        }

        forecast.Check(request.MainHost.Name, "parts", "Each host has one part.", () => SplitMigrationPlan.CheckHostsDiffer(request));
        await forecast.CheckAddressesAsync(cancellation).ConfigureAwait(false);
        if (vm is not null)
        {
            forecast.CheckRooms(vm, main.Result, [.. subs.Select(s => s.Result)]);
            await forecast.CheckLibvirtAsync(vm, main.Result, cancellation).ConfigureAwait(false);
            forecast.CheckQemu(vm, main.Result);
            foreach (HostCheck check in await SplitMigrationPlan.CheckDestinationAsync(request, vm, source.Result, cancellation).ConfigureAwait(false))
            {
                forecast._checks.Add(new SplitMigrationCheck(
                    request.MainHost.Name, check.Name, check.Result != "failed", check.Detail.Trim(), check.Remedy.Trim()));
            }

            await forecast.PlaceAsync(vm, subs, cancellation).ConfigureAwait(false);
        }

        // What Start-SplitMigration itself would object to first, in its own words, where no check above has found it.
        try
        {
            SplitMigrationPlan plan = await SplitMigrationPlan.MakeAsync(request, cancellation).ConfigureAwait(false);
            forecast._checks.Add(new SplitMigrationCheck(request.MainHost.Name, "plan", true, string.Join(" ", plan.Warnings), ""));
        }
        catch (FCtransException e) when (forecast.CanMigrate)
        {
            forecast._checks.Add(new SplitMigrationCheck(request.MainHost.Name, "plan", false, e.Message, e.Remedy));
        }
        catch (FCtransException)
        {
            // Said already, more exactly.
        }

        return forecast;
    }

    private void CheckCapabilities(string host, HostInfo info, string[] needs)
    {
        foreach (HostCapability capability in info.Capabilities.Where(c => needs.Contains(c.Name)))
        {
            _checks.Add(new SplitMigrationCheck(
                host, capability.Name, capability.Available, capability.Detail.Trim(), capability.Available ? "" : capability.Remedy.Trim()));
        }
    }

    /// <summary>A precondition that Start-SplitMigration checks too, in its own words.</summary>
    private bool Check(string host, string name, string good, Action check)
    {
        try
        {
            check();
            _checks.Add(new SplitMigrationCheck(host, name, true, good, ""));
            return true;
        }
        catch (FCtransException e)
        {
            _checks.Add(new SplitMigrationCheck(host, name, false, e.Message, e.Remedy));
            return false;
        }
    }

    /// <summary>Where the hosts are to be reached, and whether those that will connect there get through.</summary>
    private async Task CheckAddressesAsync(CancellationToken cancellation)
    {
        bool known = true;
        foreach (KvmHostConnection host in Request.SubHosts.Prepend(Request.MainHost))
        {
            known &= Check(host.Name, "data-address", host.DataAddress, () => SplitMigrationPlan.CheckDataAddress(host));
        }

        if (!known)
        {
            return;
        }

        var pairs = new List<(KvmHostConnection From, KvmHostConnection To)>();
        pairs.AddRange(Request.SubHosts.Prepend(Request.MainHost).Select(to => (Request.Source, to)));
        pairs.AddRange(Request.SubHosts.Select(to => (Request.MainHost, to)));
        if (Request.Mode != MigrationMode.PreCopy && Request.Source.DataAddress.Length > 0)
        {
            // What is left at the source is fetched from there.
            pairs.AddRange(Request.SubHosts.Prepend(Request.MainHost).Select(from => (from, Request.Source)));
        }

        foreach ((KvmHostConnection host, HostCheck check) in await HostReachability.TestAsync(pairs, cancellation).ConfigureAwait(false))
        {
            _checks.Add(new SplitMigrationCheck(host.Name, check.Name, check.Result != "failed", check.Detail.Trim(), check.Remedy.Trim()));
        }
    }

    private void CheckRooms(VmInfo vm, HostInfo main, HostInfo[] subs)
    {
        ulong mainBytes = 0;
        string host = Request.MainHost.Name;
        if (!Check(host, "main-memory", "-MainMemory is enough for a guest's kernel.", () => mainBytes = SplitMigrationPlan.CheckMainMemory(Request, vm)))
        {
            return;
        }

        Check(
            host, "room", $"{ByteSize.Text(SplitMigrationPlan.Room(main))} are free, {ByteSize.Text(mainBytes)} are for the VM.",
            () => SplitMigrationPlan.CheckMainRoom(Request.MainHost, main, mainBytes));
        ulong[] rooms = SplitMigrationPlan.Rooms(Request, subs);
        // The hosts together, since what one lacks another may have.
        Check(
            Request.SubHosts.Count == 0 ? host : string.Join(", ", Request.SubHosts.Select(s => s.Name)), "sub-room",
            rooms.Length == 0 ? "All of it fits the main host." : $"{string.Join(", ", rooms.Select(r => ByteSize.Text(r)))} are free.",
            () => SplitMigrationPlan.CheckSubRoom(Request, vm, mainBytes, rooms, []));
    }

    private async Task CheckLibvirtAsync(VmInfo vm, HostInfo main, CancellationToken cancellation)
    {
        if (vm.Manager != "libvirt")
        {
            return;
        }

        string host = Request.MainHost.Name;
        try
        {
            await SplitMigrationPlan.CheckLibvirtAsync(Request, vm, main, [], cancellation).ConfigureAwait(false);
            _checks.Add(new SplitMigrationCheck(host, "libvirt", true, "The domain goes from libvirt to libvirt.", ""));
        }
        catch (FCtransException e)
        {
            string remedy = e.Remedy.Length > 0 ? e.Remedy : "Install libvirt on the main host, and start its daemon.";
            _checks.Add(new SplitMigrationCheck(host, "libvirt", false, e.Message, remedy));
        }
    }

    private void CheckVm(VmInfo? vm)
    {
        string host = Request.Source.Name;
        if (vm is null)
        {
            FCtransException e = Failure.VmNotFound(Request.VmName, $"'{host}'");
            _checks.Add(new SplitMigrationCheck(host, "vm", false, e.Message, e.Remedy));
            return;
        }

        GuestMemoryBytes = vm.MemoryBytes;
        if (vm.Obstacles.Count == 0)
        {
            _checks.Add(new SplitMigrationCheck(host, "vm", vm.CanSplit, $"{vm.Name}, {ByteSize.Text(vm.MemoryBytes)}, {vm.RunState}", ""));
        }

        foreach (VmObstacle obstacle in vm.Obstacles)
        {
            _checks.Add(new SplitMigrationCheck(host, obstacle.Code, false, obstacle.Reason.Trim(), obstacle.Remedy.Trim()));
        }
    }

    /// <summary>An older QEMU may lack the machine; and a machine's alias means another machine in another version.</summary>
    private void CheckQemu(VmInfo vm, HostInfo main)
    {
        if (!Version.TryParse(vm.QemuVersion, out Version? from) || !Version.TryParse(main.QemuVersion, out Version? to))
        {
            return;
        }

        bool same = from.Major == to.Major && from.Minor == to.Minor;
        bool versioned = vm.MachineType.Any(char.IsAsciiDigit) && vm.MachineType.Contains('-', StringComparison.Ordinal);
        bool good = same || (versioned && to >= from);
        _checks.Add(new SplitMigrationCheck(
            Request.MainHost.Name, "qemu-version", good,
            $"QEMU {main.QemuVersion} there, {vm.QemuVersion} at the source, machine {vm.MachineType}",
            good ? "" : versioned
                ? "Install the source's version of QEMU on the main host, or a later one."
                : "Install the source's version of QEMU on the main host, or start the VM with a machine type that has a version, such as pc-q35-7.2."));
    }

    private async Task PlaceAsync(VmInfo vm, Task<HostInfo>[] subs, CancellationToken cancellation)
    {
        UsedBytes = vm.ResidentBytes;
        UnusedMethod = "never-touched-only";
        if (Request.TrackUnused)
        {
            try
            {
                UnusedMemory unused = await Request.Source.GetUnusedMemoryAsync(vm.Name, cancellation).ConfigureAwait(false);
                UsedBytes = unused.UsedPages * unused.PageSizeBytes;
                UnusedMethod = unused.Method;
            }
            catch (FCtransException e)
            {
                string remedy = e.Remedy.Length > 0 ? e.Remedy : "-TrackUnused:$false moves the VM without knowing this, with all of its memory.";
                _checks.Add(new SplitMigrationCheck(Request.Source.Name, "unused-memory", false, e.Message, remedy));
            }
        }
        else
        {
            UsedBytes = vm.MemoryBytes;
            UnusedMethod = "off";
        }

        ulong share = Math.Min(Request.MainMemoryBytes(vm.MemoryBytes), vm.MemoryBytes);
        BytesToMainHost = Math.Min(UsedBytes, (ulong)(share * FirstFill));
        double[] rooms = [.. subs.Select((s, i) => (double)SplitMigrationPlan.Limited(
            Request, i, Math.Min(s.Result.RamDirectoryFreeBytes, s.Result.MemoryAvailableBytes)))];
        double all = rooms.Sum();
        BytesToSubHosts = [.. rooms.Select(room => all > 0 ? (ulong)((UsedBytes - BytesToMainHost) * (room / all)) : 0)];
    }
}
