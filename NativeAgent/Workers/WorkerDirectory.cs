using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;
using Google.Protobuf;

namespace FCtrans.Agent.Workers;

/// <summary>
/// Where one worker keeps what must outlive its process: <c>/run/fctrans/SPLIT-ID/ROLE/</c>, mode 0700, on a tmpfs, so that
/// it is gone with the host's VMs after a reboot. The only file that knows how things lie in it.
/// </summary>
internal sealed class WorkerDirectory
{
    /// <summary>All workers' directories on this host.</summary>
    public const string Root = "/run/fctrans";

    /// <summary>
    /// Of what workers keep here, in RAM files and in stores. 1: pages may lie packed beside the RAM file or the store; to a worker that does not know
    /// that they would be unused or lost.
    /// </summary>
    public const int Format = 1;

    private const string SpecName = "spec.1";

    /// <summary>Of format 0.</summary>
    private const string FirstSpecName = "spec";

    private const UnixFileMode Private = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    private WorkerDirectory(string splitId, WorkerRole role)
    {
        SplitId = splitId;
        Role = role;
        Path = System.IO.Path.Combine(Root, splitId, RoleName(role));
    }

    /// <summary>A worker of a later version has been at work here: one of ours must not go on with it.</summary>
    public bool IsOfLaterFormat => ReadNumber(Markers.Format) > Format;

    public string SplitId { get; }

    public WorkerRole Role { get; }

    public string Path { get; }

    public string SocketPath => File("worker.sock");

    public string LogPath => File("worker.log");

    public bool Exists => Directory.Exists(Path);

    /// <summary>The name of a role in paths and commands: source, main, sub.</summary>
    public static string RoleName(WorkerRole role) => role switch
    {
        WorkerRole.Source => "source",
        WorkerRole.Main => "main",
        WorkerRole.Sub => "sub",
        _ => throw new ArgumentOutOfRangeException(nameof(role), role, "No such role."),
    };

    public static bool TryParseRole(string text, out WorkerRole role)
    {
        role = text switch
        {
            "source" => WorkerRole.Source,
            "main" => WorkerRole.Main,
            "sub" => WorkerRole.Sub,
            _ => WorkerRole.Unspecified,
        };
        return role != WorkerRole.Unspecified;
    }

    /// <summary>A split id names a directory, so nothing but 32 lower-case hexadecimal digits is one.</summary>
    public static bool IsSplitId([NotNullWhen(true)] string? text) =>
        text is not null && PeerHello.IsSplitId(text);

    /// <exception cref="ArgumentException">Not a split id, or not a role.</exception>
    public static WorkerDirectory Of(string splitId, WorkerRole role)
    {
        if (!IsSplitId(splitId))
        {
            throw new ArgumentException("A split id has 32 lower-case hexadecimal digits.", nameof(splitId));
        }

        if (role is not (WorkerRole.Source or WorkerRole.Main or WorkerRole.Sub))
        {
            throw new ArgumentException("The role is one of source, main and sub.", nameof(role));
        }

        return new WorkerDirectory(splitId, role);
    }

    /// <summary>All workers of this host, those that have ended too.</summary>
    public static List<WorkerDirectory> All()
    {
        var all = new List<WorkerDirectory>();
        if (!Directory.Exists(Root))
        {
            return all;
        }

        foreach (string split in Directory.EnumerateDirectories(Root))
        {
            string id = System.IO.Path.GetFileName(split);
            if (IsSplitId(id))
            {
                all.AddRange(new[] { WorkerRole.Source, WorkerRole.Main, WorkerRole.Sub }
                    .Select(role => new WorkerDirectory(id, role)).Where(directory => directory.Exists));
            }
        }

        return all;
    }

    /// <summary>A path in this directory.</summary>
    public string File(string name) => System.IO.Path.Combine(Path, name);

    public void Create()
    {
        Directory.CreateDirectory(Root, Private);
        Directory.CreateDirectory(System.IO.Path.Combine(Root, SplitId), Private);
        Directory.CreateDirectory(Path, Private);
    }

    /// <summary>Removes it and, when it was the split's last on this host, the split's directory too.</summary>
    public void Remove()
    {
        if (Directory.Exists(Path))
        {
            Directory.Delete(Path, recursive: true);
        }

        try
        {
            Directory.Delete(System.IO.Path.Combine(Root, SplitId));
        }
        catch (IOException)
        {
            // Another role of the same split has its directory there still, or it has gone already.
        }
    }

    /// <summary>Says for good that a step was taken (<see cref="Markers"/>); a restarted worker sees it.</summary>
    public void Mark(string marker, string content = "") => WriteWhole(marker, Encoding.UTF8.GetBytes(content));

    /// <summary>One marker becomes another, in one step.</summary>
    public void Rename(string marker, string other) => System.IO.File.Move(File(marker), File(other), overwrite: true);

    public bool Has(string marker) => System.IO.File.Exists(File(marker));

    /// <summary>What was written with the marker; null when it is not there.</summary>
    public string? Read(string marker)
    {
        try
        {
            return System.IO.File.ReadAllText(File(marker));
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }

    public int ReadNumber(string marker, int otherwise = 0) =>
        int.TryParse(Read(marker), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : otherwise;

    /// <summary>Writes a file of the worker's whole, or leaves the one that was there.</summary>
    public void Write(string name, byte[] content) => WriteWhole(name, content);

    public void WriteSpec(WorkerSpec spec) => WriteWhole(SpecName, spec.ToByteArray());

    /// <returns>null when the worker was prepared but never started.</returns>
    public WorkerSpec? ReadSpec() => ReadMessage(SpecName, WorkerSpec.Parser) ?? ReadMessage(FirstSpecName, WorkerSpec.Parser);

    /// <summary>From now on this is <see cref="Format"/>'s. Before anything is kept in a way that only it knows.</summary>
    public void RaiseFormat()
    {
        Mark(Markers.Format, Format.ToString(CultureInfo.InvariantCulture));
        if (Has(FirstSpecName))
        {
            // Agents of format 0 look at no number: without a specification they leave the rest alone.
            Rename(FirstSpecName, SpecName);
        }
    }

    public void WriteStatus(WorkerStatus status) => WriteWhole("status", status.ToByteArray());

    public WorkerStatus? ReadStatus() => ReadMessage("status", WorkerStatus.Parser);

    public void WriteProcessId(string name) => Mark(name, Environment.ProcessId.ToString(CultureInfo.InvariantCulture));

    /// <summary>The agent process that wrote its id to <paramref name="name"/>, if it still runs; else 0.</summary>
    public int RunningProcess(string name)
    {
        int pid = ReadNumber(name);
        if (pid <= 1)
        {
            return 0;
        }

        try
        {
            // A process id is used again some day: only one whose arguments name this very directory is ours.
            // A zombie has no arguments any more, so it does not count either.
            return System.IO.File.ReadAllText($"/proc/{pid}/cmdline").Split('\0').Contains(Path) ? pid : 0;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return 0;
        }
    }

    // Written aside and renamed: a reader, or a restart, sees the old content or the new one, never a part.
    private void WriteWhole(string name, byte[] content)
    {
        string temporary = File($"{name}.{Environment.ProcessId}.{Environment.CurrentManagedThreadId}.tmp");
        System.IO.File.WriteAllBytes(temporary, content);
        System.IO.File.Move(temporary, File(name), overwrite: true);
    }

    private T? ReadMessage<T>(string name, MessageParser<T> parser)
        where T : class, IMessage<T>
    {
        try
        {
            return parser.ParseFrom(System.IO.File.ReadAllBytes(File(name)));
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException or InvalidProtocolBufferException)
        {
            return null;
        }
    }
}
