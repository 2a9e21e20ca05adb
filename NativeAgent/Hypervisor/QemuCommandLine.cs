namespace FCtrans.Agent.Hypervisor;

/// <summary>One option as it was given: its name without dashes, and its value if it takes one. <paramref name="Name"/> is empty for an argument that stands alone (a disk image).</summary>
internal readonly record struct QemuOption(string Name, string? Value);

/// <summary>A memory backend that holds guest RAM.</summary>
/// <param name="Kind">QEMU's type: memory-backend-file, -memfd, -ram, …; empty for the RAM that QEMU makes by itself.</param>
/// <param name="Path">The file as the command line names it; empty if it has none.</param>
/// <param name="HugePages">Asked for hugetlbfs by name.</param>
internal sealed record MemoryBackend(string Id, string Kind, long Bytes, string Path, bool Shared, bool HugePages);

/// <summary>
/// A QEMU command line, taken apart. Made from what another process says of itself, so nothing in it is trusted: what makes
/// no sense is left out, and sizes are bounded. Immutable.
/// </summary>
internal sealed class QemuCommandLine
{
    /// <summary>More options than any management tool writes; a longer list is not looked at to its end.</summary>
    private const int MaximumOptions = 8192;

    /// <summary>Options without a value. All others take the next argument.</summary>
    private static readonly HashSet<string> s_flags =
    [
        "h", "help", "version", "mem-prealloc", "audio-help", "snapshot", "usb", "nographic", "portrait", "full-screen",
        "win2k-hack", "no-fd-bootchk", "no-acpi", "no-hpet", "singlestep", "preconfig", "S", "s", "enable-kvm", "xen-attach",
        "xen-domid-restrict", "no-reboot", "no-shutdown", "daemonize", "only-migratable", "nodefaults", "no-user-config",
        "async-teardown", "enable-sync-profile", "old-param", "semihosting", "enable-fips", "no-frame", "alt-grab",
        "ctrl-grab", "no-quit", "sdl", "curses", "no-kvm", "no-kvm-irqchip", "no-kvm-pit-reinjection", "nodefconfig", "tdf",
    ];

    private QemuCommandLine(string executable, IReadOnlyList<QemuOption> options)
    {
        Executable = executable;
        Options = options;
        Machine = Merge("type", "machine", "M");
        Objects = [.. options
            .Where(o => o.Name == "object" && o.Value is not null)
            .Select(o => KeyValueList.Parse(o.Value!, "qom-type"))];
        ApplySets();
        Backends = FindBackends();
    }

    public string Executable { get; }

    public IReadOnlyList<QemuOption> Options { get; }

    /// <summary>All <c>-machine</c> options as one.</summary>
    public KeyValueList Machine { get; }

    public IReadOnlyList<KeyValueList> Objects { get; }

    /// <summary>
    /// What holds guest RAM, in the order in which FCtrans lays it end to end: the machine's own backend, the NUMA nodes' by
    /// number, the DIMMs as given. QEMU's own RAM (no backend named) is one private block.
    /// </summary>
    public IReadOnlyList<MemoryBackend> Backends { get; }

    /// <summary><c>-name guest=…</c>; empty if none.</summary>
    public string Name
    {
        get
        {
            var name = Merge("guest", "name");
            return name["guest"] ?? "";
        }
    }

    public string Uuid => Last("uuid") ?? "";

    /// <summary>The machine type as given (an alias such as <c>q35</c> is not resolved); <c>pc</c> if none.</summary>
    public string MachineType => Machine["type"] ?? "pc";

    /// <summary>How many virtual CPUs the guest starts with; at least 1.</summary>
    public int VCpus
    {
        get
        {
            var smp = Merge("cpus", "smp");
            int cpus = Count(smp["cpus"]);
            if (cpus > 0)
            {
                return cpus;
            }

            long product = 1;
            foreach (string part in (string[])["sockets", "dies", "clusters", "cores", "threads"])
            {
                product *= Math.Max(1, Count(smp[part]));
            }

            return (int)Math.Clamp(product, 1, 4096);
        }
    }

    /// <summary>Whether the command line asks for KVM first; what runs in the end only the process itself shows.</summary>
    public bool AsksForKvm => Has("enable-kvm")
        || (Merge("accel", "accel")["accel"] ?? Machine["accel"])?.Split(':')[0] == "kvm";

    /// <summary>Where QEMU listens for its machine protocol: a path, not yet made absolute; null if nowhere that others can reach.</summary>
    public string? MonitorPath
    {
        get
        {
            foreach (var option in Options)
            {
                if (option.Name is "qmp" or "qmp-pretty" && UnixServerPath(option.Value) is { } path)
                {
                    return path;
                }
            }

            var chardevs = All("chardev").Select(v => KeyValueList.Parse(v, "backend")).ToList();
            foreach (var monitor in All("mon").Select(v => KeyValueList.Parse(v, "chardev")))
            {
                if (monitor["mode"] != "control")
                {
                    continue;
                }

                foreach (var chardev in chardevs)
                {
                    if (chardev["id"] == monitor["chardev"] && chardev["backend"] == "socket" && IsServer(chardev)
                        && chardev["path"] is { Length: > 0 } path && !chardev.IsOn("abstract"))
                    {
                        return path;
                    }
                }
            }

            return null;
        }
    }

    /// <summary>Takes an argument vector apart; the first is the program.</summary>
    public static QemuCommandLine Parse(IReadOnlyList<string> arguments)
    {
        var options = new List<QemuOption>();
        for (int i = 1; i < arguments.Count && options.Count < MaximumOptions; i++)
        {
            string argument = arguments[i];
            if (argument.Length < 2 || argument[0] != '-')
            {
                options.Add(new QemuOption("", argument));
                continue;
            }

            string name = argument.StartsWith("--", StringComparison.Ordinal) ? argument[2..] : argument[1..];
            if (s_flags.Contains(name) || i + 1 >= arguments.Count)
            {
                options.Add(new QemuOption(name, null));
            }
            else
            {
                options.Add(new QemuOption(name, arguments[++i]));
            }
        }

        return new QemuCommandLine(arguments.Count > 0 ? arguments[0] : "", options);
    }

    public bool Has(string name) => Options.Any(o => o.Name == name);

    public IEnumerable<string> All(string name) => Options.Where(o => o.Name == name && o.Value is not null).Select(o => o.Value!);

    public string? Last(string name) => All(name).LastOrDefault();

    /// <summary>The path of a <c>unix:PATH,server=on</c> value; null if it is something else, or the client's end.</summary>
    public static string? UnixServerPath(string? value)
    {
        if (value is null || !value.StartsWith("unix:", StringComparison.Ordinal))
        {
            return null;
        }

        var pairs = KeyValueList.Parse(value[5..], "path");
        return pairs["path"] is { Length: > 0 } path && IsServer(pairs) ? path : null;
    }

    public static bool IsServer(KeyValueList socket) => socket.IsOn("server");

    /// <summary>All options of these names as one list; what comes later wins.</summary>
    private KeyValueList Merge(string impliedKey, params string[] names)
    {
        var merged = new KeyValueList();
        foreach (var option in Options)
        {
            if (option.Value is not null && names.Contains(option.Name))
            {
                foreach (var (key, value) in KeyValueList.Parse(option.Value, impliedKey).Pairs)
                {
                    merged.Set(key, value);
                }
            }
        }

        return merged;
    }

    /// <summary><c>-set object.ID.KEY=VALUE</c> changes an object given elsewhere.</summary>
    private void ApplySets()
    {
        foreach (string set in All("set"))
        {
            if (TryParseSet(set, out string id, out string key, out string value))
            {
                Objects.FirstOrDefault(o => o["id"] == id)?.Set(key, value);
            }
        }
    }

    internal static bool TryParseSet(string set, out string objectId, out string key, out string value)
    {
        objectId = key = value = "";
        int equals = set.IndexOf('=', StringComparison.Ordinal);
        string[] parts = equals < 0 ? [] : set[..equals].Split('.', 3);
        if (parts.Length != 3 || parts[0] != "object")
        {
            return false;
        }

        (objectId, key, value) = (parts[1], parts[2], set[(equals + 1)..]);
        return true;
    }

    private List<MemoryBackend> FindBackends()
    {
        var ids = new List<string>();
        if (Machine["memory-backend"] is { } own)
        {
            ids.Add(own);
        }

        int index = 0;
        ids.AddRange(All("numa").Select(v => KeyValueList.Parse(v, "type"))
            .Where(n => n["type"] == "node")
            .Select(n => (Node: n["nodeid"] is { } given && int.TryParse(given, out int number) ? number : index, Backend: n["memdev"], Order: index++))
            .Where(n => n.Backend is not null)
            .OrderBy(n => n.Node).ThenBy(n => n.Order)
            .Select(n => n.Backend!));
        ids.AddRange(All("device").Select(v => KeyValueList.Parse(v, "driver"))
            .Where(d => d["driver"] is "pc-dimm" or "nvdimm" && d["memdev"] is not null)
            .Select(d => d["memdev"]!));

        var backends = new List<MemoryBackend>();
        foreach (string id in ids.Distinct())
        {
            if (Objects.LastOrDefault(o => o["id"] == id) is { } found)
            {
                backends.Add(Describe(id, found));
            }
        }

        bool ownRam = Machine["memory-backend"] is null && !All("numa").Any(n => n.Contains("memdev=", StringComparison.Ordinal));
        if (ownRam && OwnRamBytes() is > 0 and long bytes)
        {
            backends.Insert(0, new MemoryBackend(
                MachineType.StartsWith("microvm", StringComparison.Ordinal) ? "microvm.ram" : "pc.ram",
                "", bytes, Last("mem-path") ?? "", Shared: false, HugePages: false));
        }

        return backends;
    }

    private static MemoryBackend Describe(string id, KeyValueList found)
    {
        string kind = found["qom-type"] ?? "";
        return new MemoryBackend(
            id, kind, ByteSize.Parse(found["size"]), found["mem-path"] ?? "",
            // QEMU shares these two kinds unless told not to.
            Shared: found.IsOn("share", otherwise: kind is "memory-backend-memfd" or "memory-backend-shm"),
            HugePages: found.IsOn("hugetlb"));
    }

    private long OwnRamBytes()
    {
        if (MachineType == "none")
        {
            return 0;
        }

        var memory = Merge("size", "m");
        long bytes = ByteSize.Parse(memory["size"], 1 << 20);
        return bytes > 0 ? bytes : 128L << 20;
    }

    private static int Count(string? text) => int.TryParse(text, out int value) && value is > 0 and <= 4096 ? value : 0;
}
