using FCtrans.Agent.Memory;
using FCtrans.Contracts;
using Google.Protobuf;

namespace FCtrans.Agent.Workers;

/// <summary>
/// How a VM is to be paged: as its migration was told, but for what the user has changed since, which lies in the worker's directory so
/// that a worker that is started again knows it.
/// </summary>
internal sealed class PagingChoices
{
    private const string FileName = "paging-settings";

    /// <summary>Fewer could not even hold what one instruction touches; what QEMU and a guest need at least is far more.</summary>
    private const ulong LeastBytes = 1 << 20;

    private readonly WorkerDirectory _directory;
    private readonly WorkerSpec _spec;
    private PagingSettings _changed;

    public PagingChoices(WorkerSpec spec, WorkerDirectory directory)
    {
        _spec = spec;
        _directory = directory;
        string path = directory.File(FileName);
        _changed = File.Exists(path) ? PagingSettings.Parser.ParseFrom(File.ReadAllBytes(path)) : new();
    }

    public ulong MainMemoryBytes => _changed.HasMainMemoryBytes ? _changed.MainMemoryBytes : _spec.MainMemoryBytes;

    public long LimitPages => (long)(MainMemoryBytes >> PageIndex.PageShift);

    public bool Prefetch => !_changed.HasPrefetch || _changed.Prefetch;

    /// <summary>1 or 2.</summary>
    public int Copies => _changed.HasCopies ? (int)_changed.Copies : Math.Max(1, (int)_spec.Copies);

    public EvictionPolicy EvictionPolicy => _changed.EvictionPolicy;

    /// <summary>Takes what is set in <paramref name="settings"/> and keeps it.</summary>
    /// <param name="residentBytes">What of the VM is on this host now.</param>
    /// <exception cref="InvalidOperationException">It makes no sense, or this host has not the memory.</exception>
    public void Change(PagingSettings settings, ulong residentBytes)
    {
        if (settings.HasMainMemoryBytes)
        {
            Check(settings.MainMemoryBytes, residentBytes);
        }

        if (settings.HasEvictionPolicy && !Enum.IsDefined(settings.EvictionPolicy))
        {
            throw new InvalidOperationException("There is no such eviction policy.");
        }

        if (settings.HasCopies && settings.Copies is not (1 or 2))
        {
            throw new InvalidOperationException("Of a page there can be one copy or two.");
        }

        var changed = _changed.Clone();
        changed.MergeFrom(settings);
        _directory.Write(FileName, changed.ToByteArray());
        _changed = changed;
    }

    private static void Check(ulong bytes, ulong residentBytes)
    {
        if (bytes < LeastBytes)
        {
            throw new InvalidOperationException($"A main host must keep at least {LeastBytes >> 20} MiB of a VM.");
        }

        ulong free = (ulong)new DriveInfo("/dev/shm").AvailableFreeSpace;
        if (bytes > residentBytes && bytes - residentBytes > free)
        {
            throw new InvalidOperationException(
                $"The main host's /dev/shm has {free >> 20} MiB free, and the VM would need {(bytes - residentBytes) >> 20} MiB more there. Enlarge it (mount -o remount,size=…), or choose less.");
        }
    }
}
