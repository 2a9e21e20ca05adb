using System.Diagnostics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// Looks through the guest kernel's <c>struct page</c>s for the heads of free blocks in its buddy allocator.
/// <para>
/// A page heads a free block exactly when its 32-bit <c>_mapcount</c> equals the kernel's PAGE_BUDDY_MAPCOUNT_VALUE: the
/// kernel sets it, under the zone's lock, when the block enters a free list and clears it when the block leaves. The block has
/// 2^<c>private</c> pages and is aligned to its length, so one look skips all of it: the work follows the number of used
/// pages and free blocks, not the size of the guest.
/// </para>
/// With the guest stopped the result is exact. While it runs it is a hint for each page: whoever uses it must notice later
/// writes (dirty tracking) or look again with the page protected.
/// <para>
/// What can't be read, is absent, or makes no sense leaves its pages used. On a host where the guest is paged
/// (<c>mayMap</c> false) a <c>struct page</c> that lies on another host reads as zeros: in use.
/// </para>
/// One thread at a time; a scan allocates nothing.
/// </summary>
internal sealed unsafe partial class FreePageScanner : IDisposable
{
    private const int PageSize = PageIndex.PageSize;
    private const int MaxRead = 256 * 1024;
    private const int MinRead = 4096;

    private readonly GuestKernel _kernel;
    private readonly GuestRam _ram;
    private readonly bool _mayMap;
    private readonly MappedMemory _buffer;
    private readonly MappedMemory?[] _maps;
    private readonly NeverTouchedSet? _neverTouched;

    // The figures and the place of the scan that runs.
    private PageBitmap _unused = null!;
    private PageBitmap? _holes;
    private GuestRamSegment _segment;
    private ulong _segmentFirstFrame;
    private ulong _segmentEndFrame;
    private long _free;
    private long _buddy;
    private long _ballooned;
    private long _refused;
    private long _unknown;
    private IFreeBlockSink? _sink;
    private PageBitmap? _ballooning;

    /// <param name="kernel">Found in this RAM; must outlive the scanner.</param>
    /// <param name="ram">The guest's RAM.</param>
    /// <param name="mayMap">
    /// True on a host where the guest is not paged: its RAM files may be mapped, and their holes are pages never touched.
    /// False where it is: a read through a mapping could wait for a page or make one, and a hole may be a remote page.
    /// </param>
    public FreePageScanner(GuestKernel kernel, GuestRam ram, bool mayMap)
    {
        _kernel = kernel;
        _ram = ram;
        _mayMap = mayMap;
        _buffer = MappedMemory.Anonymous(MaxRead, populate: true);
        _maps = new MappedMemory?[ram.Blocks.Length];
        if (mayMap)
        {
            _neverTouched = new(ram);
            for (int i = 0; i < _maps.Length; i++)
            {
                var block = ram.Blocks[i];
                _maps[i] = MappedMemory.File(block.File, 0, (nuint)(block.PageCount << PageIndex.PageShift), write: false);
            }
        }
    }

    /// <summary>Gets the ballooned pages apart from the free ones, touched or not; null: nobody asks. As of the last scan, and kept up by rescans.</summary>
    public PageBitmap? Ballooned { get; set; }

    /// <summary>Clears <paramref name="unused"/> and sets in it every page that the guest does not use.</summary>
    /// <param name="unused">One bit for each page of the RAM.</param>
    /// <exception cref="KernelException">A RAM file can't be searched for holes.</exception>
    public ScanResult Scan(PageBitmap unused)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(unused.PageCount, _ram.PageCount);
        unused.Clear();
        if (_neverTouched is null)
        {
            return AddFree(unused);
        }

        long start = Stopwatch.GetTimestamp();
        _neverTouched.Prepare();
        double prepared = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
        var result = AddFree(unused, _neverTouched.Pages);
        start = Stopwatch.GetTimestamp();
        var (neverTouched, all) = _neverTouched.AddTo(unused);
        return result with
        {
            FreePages = Math.Max(0, all - neverTouched - result.BallooningPages),
            NeverTouchedPages = neverTouched,
            NeverTouchedMilliseconds = prepared + Stopwatch.GetElapsedTime(start).TotalMilliseconds,
        };
    }

    /// <summary>
    /// Sets the free and ballooned pages in <paramref name="unused"/> and clears none. Where the RAM may be mapped, the holes
    /// must be set in it already: they are never read.
    /// </summary>
    public ScanResult AddFree(PageBitmap unused) => AddFree(unused, unused);

    /// <summary>Tells <paramref name="sink"/> of each free block, and sets them in <paramref name="free"/>.</summary>
    public void Visit(PageBitmap free, IFreeBlockSink sink)
    {
        _neverTouched?.Prepare();
        _sink = sink;
        try
        {
            AddFree(free, _neverTouched?.Pages);
        }
        finally
        {
            _sink = null;
        }
    }

    /// <summary>The pages that were never touched, kept from scan to scan; null where holes mean something else.</summary>
    public NeverTouchedSet? NeverTouched => _neverTouched;

    private ScanResult AddFree(PageBitmap unused, PageBitmap? holes)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(unused.PageCount, _ram.PageCount);
        long start = Stopwatch.GetTimestamp();
        Ballooned?.Clear();
        Begin(unused, holes);
        foreach (ref readonly var segment in _ram.Segments)
        {
            ScanSegment(segment);
        }

        return new()
        {
            FreePages = _free,
            BuddyPages = _buddy,
            BallooningPages = _ballooned,
            RefusedBlocks = _refused,
            UnknownPages = _unknown,
            BuddyMilliseconds = Stopwatch.GetElapsedTime(start).TotalMilliseconds,
        };
    }

    public void Dispose()
    {
        _buffer.Dispose();
        _neverTouched?.Dispose();
        foreach (var map in _maps)
        {
            map?.Dispose();
        }
    }

    private void Begin(PageBitmap unused, PageBitmap? holes)
    {
        _kernel.Forget();
        _unused = unused;
        _holes = holes;
        _ballooning = Ballooned;
        _free = _buddy = _ballooned = _refused = _unknown = 0;
    }

    private void EnterSegment(in GuestRamSegment segment)
    {
        _segment = segment;
        _segmentFirstFrame = (segment.Start + PageSize - 1) >> PageIndex.PageShift;
        _segmentEndFrame = (segment.Start + segment.Bytes) >> PageIndex.PageShift;
    }

    private void ScanSegment(in GuestRamSegment segment)
    {
        EnterSegment(segment);
        int shift = _kernel.Sections.PageCountShift;
        ulong frame = _segmentFirstFrame;
        while (frame < _segmentEndFrame)
        {
            ulong section = frame >> shift;
            ulong end = Math.Min(_segmentEndFrame, (section + 1) << shift);
            if (_kernel.Sections.TryGet(section, out ulong memMap))
            {
                ScanSection(memMap, frame, end);
            }
            else
            {
                _unknown += (long)(end - frame);
            }

            frame = end;
        }
    }

    private void ScanSection(ulong memMap, ulong frame, ulong end)
    {
        ulong size = (ulong)_kernel.Pages.Size;
        int read = MinRead;
        GuestMapping mapping = default;
        while (frame < end)
        {
            ulong address = memMap + (frame * size);
            if (!mapping.Covers(address) && !_kernel.PageTables.TryMap(new(address), out mapping))
            {
                ulong unmapped = ((mapping.Bytes - (address - mapping.Virtual) - 1) / size) + 1;
                unmapped = Math.Min(unmapped, end - frame);
                _unknown += (long)unmapped;
                frame += unmapped;
                mapping = default;
                continue;
            }

            ulong inMapping = address - mapping.Virtual;
            if (!_kernel.Memory.TryLocate(new(mapping.Physical + inMapping), out var block, out long offset, out ulong contiguous))
            {
                // Mapped to something that is not RAM: the rest of that page is no better.
                ulong elsewhere = Math.Min(((PageSize - (address & (PageSize - 1)) - 1) / size) + 1, end - frame);
                _unknown += (long)elsewhere;
                frame += elsewhere;
                continue;
            }

            ulong available = Math.Min(contiguous, mapping.Bytes - inMapping);
            long count = (long)Math.Min(available / size, end - frame);
            if (count == 0)
            {
                frame += ScanStraddling(frame, address);
                continue;
            }

            if (_mayMap && _holes is not null)
            {
                frame += (ulong)ScanMapped(offset, BlockIndex(block), frame, count);
                continue;
            }

            count = Math.Min(count, read / (long)size);
            long bytes = count * (long)size;
            if (_ram.Read(block, _buffer.Address, bytes, offset) != bytes)
            {
                _unknown += count;
                frame += (ulong)count;
                continue;
            }

            long done = ScanRun(_buffer.Address, frame, count);
            frame += (ulong)done;
            // Large free blocks are stepped over, so reading ahead is wasted; used memory is read in ever larger pieces.
            read = done > count ? MinRead : Math.Min(read * 2, MaxRead);
        }
    }

    /// <summary>A <c>struct page</c> of which a part lies in another mapping (sizes that do not divide 4096).</summary>
    private ulong ScanStraddling(ulong frame, ulong address)
    {
        if (!_kernel.PageTables.TryRead(new GuestVirtualAddress(address), new Span<byte>(_buffer.Address, _kernel.Pages.Size)))
        {
            _unknown++;
            return 1;
        }

        return (ulong)ScanRun(_buffer.Address, frame, 1);
    }

    /// <summary>Looks at structures through the mapping, and only at those in pages that hold data. Returns how many frames it has dealt with.</summary>
    private long ScanMapped(long offset, int blockIndex, ulong frame, long count)
    {
        long size = _kernel.Pages.Size;
        var block = _ram.Blocks[blockIndex];
        byte* map = _maps[blockIndex]!.Address;
        var holes = _holes!;
        long done = 0;
        while (done < count)
        {
            long at = offset + (done * size);
            long pageEnd = (at + PageSize) & -PageSize;
            long inPage = Math.Min((pageEnd - at) / size, count - done);
            long ramPage = block.FirstPage + (at >> PageIndex.PageShift);
            if (inPage == 0)
            {
                // The last structure of the page reaches into the next one.
                if (!holes[ramPage] && !holes[ramPage + 1])
                {
                    done += ScanRun(map + at, frame + (ulong)done, 1);
                }
                else
                {
                    _unknown++;
                    done++;
                }

                continue;
            }

            if (holes[ramPage])
            {
                _unknown += inPage;
                done += inPage;
                continue;
            }

            // In the mapping: count × size bytes from offset on were found contiguous in the file.
            done += ScanRun(map + at, frame + (ulong)done, inPage);
        }

        return done;
    }

    /// <summary>
    /// The hot loop. <paramref name="pages"/> points to <paramref name="count"/> structures. Returns how many frames it has
    /// dealt with: at least <paramref name="count"/>, more when the last free block reaches further.
    /// </summary>
    private long ScanRun(byte* pages, ulong frame, long count)
    {
        var format = _kernel.Pages;
        long size = format.Size;
        byte* type = pages + format.MapcountOffset;
        uint buddy = format.BuddyValue;
        uint offline = format.OfflineValue ?? buddy;
        uint unaccepted = format.UnacceptedValue ?? buddy;
        long i = 0;
        while (i < count)
        {
            uint value = *(uint*)(type + (i * size));
            if ((int)value >= -1)
            {
                // Mapped, or used by the kernel: by far the most of them.
                i++;
            }
            else if (value == buddy)
            {
                i += FreeBlock(frame + (ulong)i, *(ulong*)(pages + (i * size) + format.PrivateOffset), accepted: true);
            }
            else if (value == unaccepted)
            {
                // The kernel keeps memory that it has not accepted in blocks of the largest order only (mm/page_alloc.c, __free_unaccepted).
                i += FreeBlock(frame + (ulong)i, (ulong)format.Orders - 1, accepted: false);
            }
            else
            {
                if (value == offline)
                {
                    long page = PageOf(frame + (ulong)i);
                    bool hole = _holes is not null && _holes[page];
                    long added = _unused.SetCounting(new(page, 1));
                    _ballooned += hole ? 0 : added;
                    _ballooning?.Fill(new(page, 1), true);
                }

                i++;
            }
        }

        return i;
    }

    /// <summary>Returns how many frames the block has; 1 when it makes no sense.</summary>
    private long FreeBlock(ulong frame, ulong order, bool accepted)
    {
        if (order >= (ulong)_kernel.Pages.Orders)
        {
            _refused++;
            return 1;
        }

        long pages = 1L << (int)order;
        if ((frame & (ulong)(pages - 1)) != 0 || (ulong)pages > _segmentEndFrame - frame)
        {
            _refused++;
            return 1;
        }

        long page = PageOf(frame);
        _free += _unused.SetCounting(new(page, pages));
        if (accepted)
        {
            _buddy += pages;
            // Reclaim looks for the buddy allocator's mark again; what was never accepted takes no memory anyway.
            _sink?.Found(frame, page, (int)order);
        }

        return pages;
    }

    /// <summary>The page of a frame of the segment that is being scanned.</summary>
    private long PageOf(ulong frame)
        => (long)((_segment.RamOffset + (frame << PageIndex.PageShift) - _segment.Start) >> PageIndex.PageShift);

    private int BlockIndex(RamBlock block)
    {
        var blocks = _ram.Blocks;
        for (int i = 0; i < blocks.Length; i++)
        {
            if (ReferenceEquals(blocks[i], block))
            {
                return i;
            }
        }

        throw new InvalidOperationException("The block is not one of this guest's RAM.");
    }
}
