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
internal sealed class UnusedPages : IDisposable
{
    private readonly GuestRam _ram;
    private readonly GuestMemoryReader _memory;
    private readonly bool _mayMap;
    private GuestKernel? _kernel;
    private FreePageScanner? _scanner;
    private string _reason = "";
    private long _lastSearchEnd;
    private TimeSpan _lastSearchTook;

    private UnusedPages(GuestRam ram, bool mayMap)
    {
        _ram = ram;
        _memory = new(ram);
        _mayMap = mayMap;
    }

    /// <summary>The guest's kernel as of the last <see cref="Refresh"/>; null when none could be believed.</summary>
    public GuestKernel? Kernel => _kernel;

    /// <param name="ram">The guest's RAM, with its segments.</param>
    /// <param name="mayMap">False on a host where the guest is paged (or will be): see <see cref="FreePageScanner"/>.</param>
    public static UnusedPages Open(GuestRam ram, bool mayMap) => new(ram, mayMap);

    /// <summary>
    /// Clears <paramref name="unused"/> and sets each page that the guest does not use now. A guest that runs meanwhile may
    /// use some of them by the time this returns: see <see cref="FreePageScanner"/>.
    /// </summary>
    /// <exception cref="KernelException">A RAM file can't be searched for holes.</exception>
    public UnusedFigures Refresh(PageBitmap unused)
    {
        double findMilliseconds = FindKernel();
        if (_scanner is not null)
        {
            var result = _scanner.Scan(unused);
            return new()
            {
                Method = UnusedFigures.Buddy,
                Reason = "",
                GuestKernel = _kernel!.Release,
                Total = _ram.PageCount,
                NeverTouched = result.NeverTouchedPages,
                Free = result.FreePages,
                Ballooned = result.BallooningPages,
                ScanMilliseconds = result.Milliseconds,
                FindMilliseconds = findMilliseconds,
            };
        }

        long start = Stopwatch.GetTimestamp();
        unused.Clear();
        long neverTouched = _mayMap ? NeverTouchedPages.AddTo(_ram, unused) : 0;
        return new()
        {
            Method = UnusedFigures.NeverTouchedOnly,
            Reason = _reason,
            GuestKernel = _kernel?.Release ?? "",
            Total = _ram.PageCount,
            NeverTouched = neverTouched,
            ScanMilliseconds = Stopwatch.GetElapsedTime(start).TotalMilliseconds,
            FindMilliseconds = findMilliseconds,
        };
    }

    /// <summary>Sets the pages of the guest's kernel itself in <paramref name="into"/>, as of the last <see cref="Refresh"/>; see <see cref="KernelPageSet"/>.</summary>
    public void KernelPages(PageBitmap into)
    {
        if (_kernel is not null)
        {
            KernelPageSet.AddTo(_kernel, _ram, into);
        }
    }

    public void Dispose() => _scanner?.Dispose();

    private double FindKernel()
    {
        if (_kernel is not null)
        {
            if (_kernel.IsStillThere(out _reason))
            {
                return 0;
            }

            _scanner?.Dispose();
            _scanner = null;
            _kernel = null;
        }
        else if (_lastSearchEnd != 0 && Stopwatch.GetElapsedTime(_lastSearchEnd) < _lastSearchTook * 9)
        {
            // A search looks at every touched page: a guest that has no kernel to find must not cost all of a processor.
            return 0;
        }

        long start = Stopwatch.GetTimestamp();
        _kernel = GuestKernel.TryFind(_ram, _memory, out _reason);
        if (_kernel is not null)
        {
            _scanner = new FreePageScanner(_kernel, _ram, _mayMap);
        }

        _lastSearchEnd = Stopwatch.GetTimestamp();
        _lastSearchTook = Stopwatch.GetElapsedTime(start, _lastSearchEnd);
        return _lastSearchTook.TotalMilliseconds;
    }
}
