using System.Numerics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Migration;

/// <summary>
/// The pages that only the source has after a switch-over that did not wait for them. Their content lies in the RAM file of the source's
/// QEMU, which stands still for ever; so it is as it was until the main host has it and says so.
/// <para>
/// What outlives this process is a file that names all pages left at the switch-over, and the RAM file: a page that was given up is a hole
/// in it. So a restarted worker knows exactly what it still has. Any thread may use it.
/// </para>
/// </summary>
internal sealed unsafe class LeftPages : IHeldPages, IDisposable
{
    private readonly GuestRam _ram;
    private readonly PageBitmap _left;
    private readonly Lock _gate = new();
    private long _count;

    /// <param name="ram">Not owned.</param>
    /// <param name="left">Owned from now on.</param>
    private LeftPages(GuestRam ram, PageBitmap left)
    {
        _ram = ram;
        _left = left;
        _count = left.Count();
        AtSwitchOver = _count;
    }

    /// <summary>Pages left when the VM stopped; of a restarted worker: when it began.</summary>
    public long AtSwitchOver { get; }

    /// <summary>Pages left now.</summary>
    public long Count => Interlocked.Read(ref _count);

    /// <summary>
    /// Whether pages may be given up: only once the migration is committed. Before that the VM may have to run here again, and needs them.
    /// </summary>
    public bool MayBeGivenUp { get; set; }

    /// <summary>Names the pages for whoever comes after this process, and takes them over.</summary>
    /// <param name="left">Owned from now on.</param>
    public static LeftPages Keep(string path, GuestRam ram, PageBitmap left)
    {
        PageRunFile.Write(path, left);
        return new LeftPages(ram, left);
    }

    /// <summary>For a restarted worker: what was left and has not been given up since.</summary>
    public static LeftPages Reopen(string path, GuestRam ram)
    {
        var left = PageRunFile.Read(path, ram.PageCount);
        using var holes = new PageBitmap(ram.PageCount);
        NeverTouchedPages.AddTo(ram, holes);
        left.AndNot(holes);
        return new LeftPages(ram, left) { MayBeGivenUp = true };
    }

    /// <summary>Reads one page; false when it is not here any more.</summary>
    /// <exception cref="IOException">The RAM file can't be read.</exception>
    public bool TryGet(long page, byte* destination)
    {
        lock (_gate)
        {
            if (!_left[page])
            {
                return false;
            }
        }

        var block = _ram.BlockOf(page);
        nint read = SparseFile.Read(block.File, destination, PageIndex.PageSize, (page - block.FirstPage) << PageIndex.PageShift);
        return read == PageIndex.PageSize ? true
            : throw new IOException($"The source's RAM file can't be read at page {page} ({(read < 0 ? Errno.Name((int)-read) : "it is too short")}).");
    }

    /// <summary>Gives pages up: the main host has their content, or needs it no more.</summary>
    /// <exception cref="IOException">The VM may still have to run here.</exception>
    public void Discard(PageRange range)
    {
        if (!MayBeGivenUp)
        {
            throw new IOException("Pages can't be given up before the migration is committed.");
        }

        for (long page = range.First; page < range.End;)
        {
            long first;
            long end;
            lock (_gate)
            {
                if (!_left.NextRunIn(new(page, range.End - page), out var run))
                {
                    return;
                }

                first = run.First;
                end = Math.Min(run.End, _ram.BlockOf(first).EndPage);
            }

            // The hole first: a page whose bit is clear must not come back after a restart.
            var block = _ram.BlockOf(first);
            int errno = SparseFile.PunchHole(block.File, (first - block.FirstPage) << PageIndex.PageShift, (end - first) << PageIndex.PageShift);
            if (errno != 0)
            {
                throw new IOException($"Memory of the source's RAM file could not be given back ({Errno.Name(errno)}).");
            }

            lock (_gate)
            {
                Interlocked.Add(ref _count, -_left.ClearCounting(new PageRange(first, end - first)));
            }

            page = end;
        }
    }

    /// <summary>The next pages that are here, from <paramref name="from"/> on; false when there are no more.</summary>
    public bool NextHeld(long from, out PageRange run)
    {
        lock (_gate)
        {
            return _left.NextRun(from, long.MaxValue, out run);
        }
    }

    public void Dispose() => _left.Dispose();
}
