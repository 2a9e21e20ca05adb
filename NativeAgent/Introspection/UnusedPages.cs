using System.Diagnostics;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Introspection;

/// <summary>
/// The unused pages of a VM, by the best means that work at the moment: its kernel's page allocator, or else only the pages
/// that it never touched. Looks for the kernel again when it is lost (a reboot, a kexec). One thread at a time.
/// Does not own the RAM.
/// </summary>
internal sealed class UnusedPages : IUnusedPages
{
    /// <summary>While the guest runs, a process may end between the question what runs and the look at its page tables.</summary>
    private const int Attempts = 3;

    private readonly GuestRam _ram;
    private readonly GuestMemoryReader _memory;
    private readonly bool _mayMap;
    private readonly Func<IReadOnlyList<GuestProcessor>>? _processors;
    private GuestKernel? _kernel;
    private FreePageScanner? _scanner;
    private PerCpuFreePages? _perCpu;
    private string _reason = "";
    private string? _poisoned;
    private readonly List<PageRange> _structPages = [];
    private PageBitmap? _freeKept;
    private PageBitmap? _balloonedKept;
    private bool _keptIsRight;
    private PageBitmap? _changed;
    private PageBitmap? _changedBefore;
    private bool _visitAll = true;
    private long _lastSearchEnd;
    private TimeSpan _lastSearchTook;

    private UnusedPages(GuestRam ram, bool mayMap, Func<IReadOnlyList<GuestProcessor>>? processors)
    {
        _processors = processors;
        _ram = ram;
        _memory = new(ram);
        _mayMap = mayMap;
    }

    /// <summary>The guest's kernel as of the last <see cref="Refresh"/>; null when none could be believed.</summary>
    public GuestKernel? Kernel => _kernel;

    /// <param name="ram">The guest's RAM, with its segments.</param>
    /// <param name="mayMap">False on a host where the guest is paged (or will be): see <see cref="FreePageScanner"/>.</param>
    /// <param name="processors">
    /// Asks QEMU what the guest's processors run: <see cref="GuestProcessor.Parse"/> of the monitor's <c>info registers -a</c>.
    /// Called at each refresh. Without it a guest that reboots or kexecs can pass for the kernel that it ran before, for as
    /// long as that one's structures lie untouched in its memory: give it wherever a decision depends on the answer.
    /// </param>
    public static UnusedPages Open(GuestRam ram, bool mayMap, Func<IReadOnlyList<GuestProcessor>>? processors = null)
        => new(ram, mayMap, processors);

    /// <summary>Gets the ballooned pages at each <see cref="Refresh"/>, which puts them among the unused ones too; null: nobody asks.</summary>
    public PageBitmap? Ballooned { get; set; }

    /// <summary>
    /// Knows what the guest writes, from its first look on: then a look costs what has changed. Keeps two bits a page. Null: a look is at
    /// everything, or at what its caller knows to be written.
    /// </summary>
    public WriteWatch? Watch { get; set; }

    /// <summary>The guest kernel's command line; null when it can't be read.</summary>
    public string? CommandLine { get; private set; }

    /// <summary>
    /// Clears <paramref name="unused"/> and sets each page that the guest does not use now. A guest that runs meanwhile may
    /// use some of them by the time this returns: see <see cref="FreePageScanner"/>.
    /// </summary>
    /// <exception cref="KernelException">A RAM file can't be searched for holes.</exception>
    public UnusedFigures Refresh(PageBitmap unused)
    {
        if (Watch is not null)
        {
            return Look(unused, null, keep: true);
        }

        _keptIsRight = false;
        return Look(unused, null, keep: false);
    }

    /// <inheritdoc/>
    /// <remarks>Keeps two bits a page from one such call to the next.</remarks>
    public UnusedFigures Refresh(PageBitmap unused, PageBitmap? written) => Look(unused, written, keep: true);

    private UnusedFigures Look(PageBitmap unused, PageBitmap? written, bool keep)
    {
        double findMilliseconds = FindKernel();
        if (_scanner is not null && _poisoned is null)
        {
            written = Watch is null ? written : Watched();
            var result = keep ? ScanChanged(unused, written) : Scan(unused);
            if (GuestCounters.TryRead(_kernel!, out var counters) && !counters.Allows(result.BuddyPages))
            {
                return NeverTouchedOnly(
                    unused, findMilliseconds, $"{result.BuddyPages} pages look free, and the guest's kernel counts only {counters.Free} (MemFree)");
            }

            // Where the command line was read it has answered this; the pattern is a second opinion, taken once.
            if ((CommandLine is not null && findMilliseconds == 0) || !PagePoisoning.PatternIn(_ram, unused))
            {
                long perCpuStart = Stopwatch.GetTimestamp();
                long perCpu = _perCpu?.AddTo(unused) ?? 0;
                return Figures(result, perCpu, Stopwatch.GetElapsedTime(perCpuStart).TotalMilliseconds, findMilliseconds);
            }

            _poisoned = "free pages hold the kernel's poison pattern";
        }

        return NeverTouchedOnly(
            unused, findMilliseconds,
            _kernel is null ? _reason : $"the guest checks the content of its free pages ({_poisoned}): none of them can be skipped");
    }

    private UnusedFigures NeverTouchedOnly(PageBitmap unused, double findMilliseconds, string reason)
    {
        long start = Stopwatch.GetTimestamp();
        _keptIsRight = false;
        unused.Clear();
        Ballooned?.Clear();
        long neverTouched = _mayMap ? NeverTouchedPages.AddTo(_ram, unused) : 0;
        return new()
        {
            Method = UnusedFigures.NeverTouchedOnly,
            Reason = reason,
            GuestKernel = _kernel?.Release ?? "",
            Total = _ram.PageCount,
            NeverTouched = neverTouched,
            ScanMilliseconds = Stopwatch.GetElapsedTime(start).TotalMilliseconds,
            FindMilliseconds = findMilliseconds,
        };
    }

    private ScanResult Scan(PageBitmap unused)
    {
        _scanner!.Ballooned = Ballooned;
        return _scanner.Scan(unused);
    }

    private ScanResult ScanChanged(PageBitmap unused, PageBitmap? written)
    {
        _freeKept ??= new(_ram.PageCount);
        _balloonedKept ??= new(_ram.PageCount);
        _scanner!.Ballooned = _balloonedKept;
        var changed = _keptIsRight ? written : null;
        // Should the scan fail, what it leaves behind is half done.
        _keptIsRight = false;
        var result = _scanner.ScanChanged(unused, _freeKept, changed, Watch is null ? null : _changed);
        _keptIsRight = true;
        Ballooned?.CopyFrom(_balloonedKept);
        return result;
    }

    private UnusedFigures Figures(in ScanResult result, long perCpu, double perCpuMilliseconds, double findMilliseconds) => new()
    {
        Method = UnusedFigures.Buddy,
        Reason = "",
        GuestKernel = _kernel!.Release,
        Total = _ram.PageCount,
        NeverTouched = result.NeverTouchedPages,
        Free = result.FreePages + perCpu,
        PerCpu = perCpu,
        Ballooned = result.BallooningPages,
        ScanMilliseconds = result.Milliseconds + perCpuMilliseconds,
        FindMilliseconds = findMilliseconds,
    };

    /// <summary>
    /// Sets the pages of the guest's kernel itself in <paramref name="into"/>, as of the last <see cref="Refresh(PageBitmap)"/>, see <see cref="KernelPageSet"/>,
    /// and all others that a look reads: where they stay, the guest's free memory can be told, wherever the rest of it lies.
    /// </summary>
    public void KernelPages(PageBitmap into, PageBitmap unused)
    {
        if (_kernel is not null)
        {
            KernelPagesButData(into);
            KernelDataPages.AddTo(_kernel, _ram, unused, into);
        }
    }

    /// <summary>As <see cref="KernelPages"/>, but for the data (<see cref="KernelDataPages"/>), whose cost grows with the guest's memory.</summary>
    public void KernelPagesButData(PageBitmap into)
    {
        if (_kernel is not null)
        {
            KernelPageSet.AddTo(_kernel, _ram, into);
            AddReads(_kernel, into);
        }
    }

    /// <summary>
    /// Takes the steps of a look that begins with nothing but the processors' registers, and notes what they read. The page structures, which
    /// may be read through a mapping, are the kernel's own pages; so is what describes them but for memory that the boot reserved.
    /// </summary>
    private void AddReads(GuestKernel kernel, PageBitmap into)
    {
        using var nothing = new PageBitmap(_ram.PageCount);
        _memory.Reads = into;
        try
        {
            kernel.Forget();
            if (_processors?.Invoke() is { } processors)
            {
                _ = VmCoreInfoPointers.Find(_memory, processors);
                _ = GuestProcessor.Run(processors, kernel, out _);
            }

            _ = GuestKernel.TryOpen(_memory, kernel.InfoPage, out _);
            foreach (ref readonly var segment in _ram.Segments)
            {
                ulong end = (segment.Start + segment.Bytes - 1) >> kernel.Sections.SectionBits;
                for (ulong section = segment.Start >> kernel.Sections.SectionBits; section <= end; section++)
                {
                    _ = kernel.Sections.TryGet(section, out _);
                }
            }

            _ = KernelSymbols.TryRead(kernel, KernelSymbols.Wanted, out _);
            _ = PagePoisoning.CommandLine(kernel);
            _ = GuestCounters.TryRead(kernel, out _);
            _ = PerCpuFreePages.TryOpen(kernel, _ram)?.AddTo(nothing);
        }
        finally
        {
            _memory.Reads = null;
        }
    }

    /// <inheritdoc/>
    /// <remarks>By the LRU lists of the kernel as of the last <see cref="Refresh(PageBitmap)"/>, see <see cref="GuestLru"/>. Cost: with the used pages.</remarks>
    public void HotPages(PageBitmap hotPages, PageBitmap unused)
    {
        if (_kernel is not null && GuestLru.TryOpen(_kernel) is { } lru)
        {
            lru.AddHot(_ram, unused, hotPages);
        }
    }

    /// <summary>Tells <paramref name="sink"/> of each free block, in the kernel as of the last <see cref="Refresh(PageBitmap)"/> (method <c>buddy</c>), which must have succeeded.</summary>
    /// <param name="free">Gets the free pages.</param>
    /// <param name="sink">Told on this thread.</param>
    /// <param name="changedOnly">
    /// With <see cref="Watch"/>: leave out blocks around which the guest has written no <c>struct page</c> since the last visit but one: they
    /// were visited, as free blocks, in both.
    /// </param>
    public void VisitFree(PageBitmap free, IFreeBlockSink sink, bool changedOnly = false)
    {
        _scanner!.Ballooned = null;
        if (!changedOnly || _visitAll || _changed is null)
        {
            free.Clear();
            _scanner.Visit(free, sink);
        }
        else
        {
            free.CopyFrom(_freeKept!);
            OrIn(_changedBefore!, _changed);
            _scanner.VisitChanged(free, sink, _changedBefore!);
        }

        if (_changed is not null)
        {
            (_changed, _changedBefore) = (_changedBefore, _changed);
            ClearIn(_changed!);
            _visitAll = false;
        }
    }

    /// <summary>What was written, by <see cref="Watch"/>, which is told the pages to watch when the kernel is new.</summary>
    private PageBitmap Watched()
    {
        if (_structPages.Count == 0)
        {
            using var pages = new PageBitmap(_ram.PageCount);
            KernelPageSet.AddStructPages(_kernel!, _ram, pages);
            foreach (var block in _ram.Blocks)
            {
                for (long at = block.FirstPage; pages.NextRunIn(new(at, block.EndPage - at), out var run); at = run.End)
                {
                    _structPages.Add(run);
                }
            }
        }

        var written = Watch!.Look(_structPages);
        _changed ??= new(_ram.PageCount);
        _changedBefore ??= new(_ram.PageCount);
        OrIn(_changed, written);
        return written;
    }

    private void OrIn(PageBitmap into, PageBitmap other)
    {
        foreach (var range in _structPages)
        {
            into.OrIn(range, other);
        }
    }

    private void ClearIn(PageBitmap bitmap)
    {
        foreach (var range in _structPages)
        {
            bitmap.Fill(range, false);
        }
    }

    /// <summary>As <see cref="FreePageScanner.NeverTouched"/>, of the kernel as of the last <see cref="Refresh"/>.</summary>
    public NeverTouchedSet? NeverTouched => _scanner?.NeverTouched;

    public void Dispose()
    {
        _scanner?.Dispose();
        _freeKept?.Dispose();
        _balloonedKept?.Dispose();
        _changed?.Dispose();
        _changedBefore?.Dispose();
    }

    private double FindKernel()
    {
        IReadOnlyList<GuestProcessor>? processors = null;
        if (_kernel is not null)
        {
            for (int attempt = 0; attempt < Attempts; attempt++)
            {
                processors = _processors?.Invoke();
                if (_kernel.IsStillThere(out _reason) && (processors is null || GuestProcessor.Run(processors, _kernel, out _reason)))
                {
                    return 0;
                }
            }

            Lose();
        }
        else if (_lastSearchEnd != 0 && Stopwatch.GetElapsedTime(_lastSearchEnd) < _lastSearchTook * 9)
        {
            // A search looks at every touched page: a guest that has no kernel to find must not cost all of a processor.
            return 0;
        }

        long start = Stopwatch.GetTimestamp();
        processors ??= _processors?.Invoke();
        _kernel = GuestKernel.TryFind(_ram, _memory, out _reason, processors, _mayMap);
        if (_kernel is not null)
        {
            _scanner = new FreePageScanner(_kernel, _ram, _mayMap);
            _perCpu = PerCpuFreePages.TryOpen(_kernel, _ram);
            CommandLine = PagePoisoning.CommandLine(_kernel);
            _poisoned = CommandLine is null ? null : PagePoisoning.OptionIn(CommandLine);
        }

        _lastSearchEnd = Stopwatch.GetTimestamp();
        _lastSearchTook = Stopwatch.GetElapsedTime(start, _lastSearchEnd);
        return _lastSearchTook.TotalMilliseconds;
    }

    private void Lose()
    {
        _scanner?.Dispose();
        _scanner = null;
        Watch?.Forget(_structPages);
        if (_changed is not null)
        {
            ClearIn(_changed);
            ClearIn(_changedBefore!);
        }

        _structPages.Clear();
        _visitAll = true;
        _keptIsRight = false;
        _perCpu = null;
        _kernel = null;
        _poisoned = null;
        CommandLine = null;
    }
}
