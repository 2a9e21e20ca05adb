using System.Text.Json;
using System.Text.Json.Nodes;
using FCtrans.Agent.Interop;

namespace FCtrans.Agent.Hypervisor;

/// <summary>Where things go on the host that a VM comes to.</summary>
/// <param name="RamDirectory">A tmpfs, for the RAM files.</param>
/// <param name="RamFilePrefix">Begins the name of each RAM file; its backend's id follows.</param>
/// <param name="RunDirectory">For sockets whose own path is taken here.</param>
/// <param name="IsTaken">Whether something is at this path already; null: looks in the file system.</param>
internal sealed record DestinationPaths(
    string RamDirectory, string RamFilePrefix, string RunDirectory, Func<string, bool>? IsTaken = null);

/// <summary>A RAM file that the destination's QEMU will make.</summary>
internal sealed record DestinationRamFile(string BackendId, string Path, long Bytes);

/// <summary>A command line that can't be used on another host: why, and what to change.</summary>
internal sealed class CommandLineException(string reason, string remedy) : Exception($"{reason} {remedy}")
{
    public string Reason { get; } = reason;

    public string Remedy { get; } = remedy;
}

/// <summary>
/// The command line that receives a VM: the source's own with
/// <list type="bullet">
/// <item>each memory backend a shared file of the destination, not preallocated and not bound to NUMA nodes of the source;</item>
/// <item><c>-S</c> and <c>-incoming defer</c>, and neither <c>-daemonize</c> nor <c>-loadvm</c>;</item>
/// <item>sockets and the PID file at their own paths, or in the run directory where those are taken.</item>
/// </list>
/// All else stays: the device tree has to be the same.
/// </summary>
/// <param name="Arguments">The first is the program.</param>
/// <param name="MonitorPath">Where the new QEMU will listen for its machine protocol.</param>
/// <param name="RamFiles">In the order of <see cref="QemuCommandLine.Backends"/>.</param>
/// <param name="Sockets">Unix sockets that the new QEMU will make, the monitor's too.</param>
/// <param name="Directories">Have to exist before it starts.</param>
internal sealed record DestinationCommandLine(
    IReadOnlyList<string> Arguments,
    string MonitorPath,
    IReadOnlyList<DestinationRamFile> RamFiles,
    IReadOnlyList<string> Sockets,
    IReadOnlyList<string> Directories,
    string? PidFile)
{
    private static readonly string[] s_dropped = ["incoming", "daemonize", "S", "loadvm", "mem-prealloc", "preconfig"];

    /// <summary>Of a memory backend: what is the source host's own affair, or of its kind of backend only.</summary>
    private static readonly string[] s_droppedOfBackend =
        ["prealloc", "prealloc-threads", "prealloc-context", "host-nodes", "policy", "hugetlb", "hugetlbsize", "seal", "discard-data"];

    /// <exception cref="CommandLineException">Something on it belongs to the source host and can't be had elsewhere.</exception>
    public static DestinationCommandLine Translate(IReadOnlyList<string> arguments, DestinationPaths paths)
    {
        var source = QemuCommandLine.Parse(arguments);
        if (FindObstacle(source) is { } obstacle)
        {
            throw obstacle;
        }

        return new Translator(source, paths).Run();
    }

    /// <summary>Why this command line can't be used on another host; null if it can.</summary>
    public static CommandLineException? FindObstacle(QemuCommandLine source)
    {
        if (source.MonitorPath is null)
        {
            return new CommandLineException(
                "The VM has no monitor socket.", "Start it with -qmp unix:PATH,server=on,wait=off.");
        }

        foreach (var option in source.Options)
        {
            if (option.Name is "readconfig" or "add-fd")
            {
                return new CommandLineException(
                    $"The VM was started with -{option.Name}, which another host can't repeat.",
                    "Give its settings on the command line.");
            }

            if (option is { Name: "chardev" or "netdev" or "net" or "device" or "nic", Value: { } value } && UsesDescriptor(value))
            {
                return new CommandLineException(
                    $"'-{option.Name} {value}' uses a descriptor that the program which started the VM had opened.",
                    "Name a path or an interface there instead of fd=.");
            }
        }

        foreach (var backend in source.Backends)
        {
            if (backend.Kind is not ("memory-backend-file" or "memory-backend-memfd"))
            {
                return new CommandLineException(
                    $"The memory backend {backend.Id} is no shared file.",
                    "Use -object memory-backend-file,mem-path=/dev/shm/…,share=on.");
            }
        }

        return source.Backends.Count > 0
            ? null
            : new CommandLineException("The VM has no memory backend.", "Use -object memory-backend-file,mem-path=/dev/shm/…,share=on.");
    }

    private static bool UsesDescriptor(string value)
        => KeyValueList.Parse(value, "type").Pairs.Any(p => p.Key is "fd" or "fds" or "vhostfd" or "vhostfds")
            || value.Contains("/dev/fdset/", StringComparison.Ordinal);

    private sealed class Translator(QemuCommandLine source, DestinationPaths paths)
    {
        private readonly List<string> _arguments = [source.Executable];
        private readonly List<string> _sockets = [];
        private readonly SortedSet<string> _directories = new(StringComparer.Ordinal);
        private readonly Func<string, bool> _isTaken = paths.IsTaken ?? UnixSockets.IsTaken;
        private readonly Dictionary<string, DestinationRamFile> _ramFiles = source.Backends.ToDictionary(
            b => b.Id,
            b => new DestinationRamFile(b.Id, Path.Combine(paths.RamDirectory, paths.RamFilePrefix + SafeName(b.Id)), b.Bytes));
        private string? _monitorPath;
        private string? _pidFile;

        public DestinationCommandLine Run()
        {
            if (_ramFiles.Values.Select(f => f.Path).Distinct().Count() != _ramFiles.Count)
            {
                throw new CommandLineException(
                    "Two memory backends have ids that differ only in characters that a file's name can't have.",
                    "Give them plain ids.");
            }

            foreach (var option in source.Options)
            {
                if (!s_dropped.Contains(option.Name))
                {
                    Add(option);
                }
            }

            _arguments.AddRange(["-S", "-incoming", "defer"]);
            _directories.Add(paths.RamDirectory);
            return new DestinationCommandLine(
                _arguments, _monitorPath!, [.. source.Backends.Select(b => _ramFiles[b.Id])], _sockets, [.. _directories], _pidFile);
        }

        private void Add(QemuOption option)
        {
            if (option.Name.Length == 0)
            {
                _arguments.Add(option.Value!);
                return;
            }

            if (option.Name == "set" && QemuCommandLine.TryParseSet(option.Value ?? "", out string id, out _, out _)
                && _ramFiles.ContainsKey(id))
            {
                // It is in the object's own settings by now, or overruled by ours.
                return;
            }

            _arguments.Add("-" + option.Name);
            if (option.Value is not null)
            {
                _arguments.Add(Translate(option.Name, option.Value));
            }
        }

        private string Translate(string name, string value)
        {
            switch (name)
            {
                case "object":
                    return TranslateObject(value);
                case "pidfile":
                    return _pidFile = Place(value);
                case "chardev":
                    return TranslateCharacterDevice(value);
                case "qmp" or "qmp-pretty" or "monitor" or "serial" or "parallel" when QemuCommandLine.UnixServerPath(value) is { } path:
                    string placed = PlaceSocket(path);
                    if (name.StartsWith("qmp", StringComparison.Ordinal) && path == source.MonitorPath)
                    {
                        _monitorPath ??= placed;
                    }

                    var pairs = KeyValueList.Parse(value[5..], "path");
                    pairs.Set("path", placed);
                    return "unix:" + pairs.Format("path");
                default:
                    return value;
            }
        }

        private string TranslateCharacterDevice(string value)
        {
            var pairs = KeyValueList.Parse(value, "backend");
            if (pairs["path"] is not { Length: > 0 } path || pairs.IsOn("abstract"))
            {
                return value;
            }

            string placed;
            if (pairs["backend"] == "socket" && QemuCommandLine.IsServer(pairs))
            {
                placed = PlaceSocket(path);
                if (path == source.MonitorPath)
                {
                    _monitorPath ??= placed;
                }
            }
            else if (pairs["backend"] == "file")
            {
                placed = Place(path);
            }
            else
            {
                return value;
            }

            pairs.Set("path", placed);
            return pairs.Format("backend");
        }

        private string TranslateObject(string value)
        {
            var pairs = KeyValueList.Parse(value, "qom-type");
            if (pairs["id"] is not { } id || !_ramFiles.TryGetValue(id, out var file))
            {
                return value;
            }

            return value.StartsWith('{') ? TranslateJson(value, file) : TranslatePairs(pairs, file);
        }

        private string TranslatePairs(KeyValueList pairs, DestinationRamFile file)
        {
            foreach (string key in s_droppedOfBackend)
            {
                pairs.Remove(key);
            }

            // After -set, which may have given the size.
            pairs.Set("qom-type", "memory-backend-file");
            pairs.Set("size", file.Bytes.ToString(System.Globalization.CultureInfo.InvariantCulture));
            pairs.Set("mem-path", file.Path);
            pairs.Set("share", "on");
            return pairs.Format("qom-type");
        }

        private string TranslateJson(string value, DestinationRamFile file)
        {
            var members = JsonNode.Parse(value)!.AsObject();
            foreach (string key in s_droppedOfBackend)
            {
                members.Remove(key);
            }

            members["qom-type"] = "memory-backend-file";
            members["size"] = file.Bytes;
            members["mem-path"] = file.Path;
            members["share"] = true;
            using var stream = new MemoryStream();
            using (var writer = new Utf8JsonWriter(stream))
            {
                members.WriteTo(writer);
            }

            return System.Text.Encoding.UTF8.GetString(stream.GetBuffer(), 0, (int)stream.Length);
        }

        private string PlaceSocket(string path)
        {
            string placed = Place(path);
            _sockets.Add(placed);
            return placed;
        }

        private string Place(string path)
        {
            string placed = path;
            for (int number = 0; _isTaken(placed) || _sockets.Contains(placed); number++)
            {
                placed = Path.Combine(paths.RunDirectory, (number == 0 ? "" : $"{number}-") + Path.GetFileName(path));
                if (number > 1000)
                {
                    throw new CommandLineException($"No free path for {path} on this host.", $"Clear {paths.RunDirectory}.");
                }
            }

            if (Path.GetDirectoryName(placed) is { Length: > 0 } directory)
            {
                _directories.Add(directory);
            }

            return placed;
        }

        private static string SafeName(string id)
            => string.Concat(id.Select(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-' or '_' ? c : '_'));
    }
}
