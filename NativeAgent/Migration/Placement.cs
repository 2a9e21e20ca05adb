using System.Runtime.InteropServices;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Migration;

/// <summary>
/// Where each page of the VM is to live: one byte a page. A page gets its place when it is first sent and keeps it, but for
/// a page of a sub-host that is written again and again: that one belongs to the working set and moves to the main host as
/// long as there is room. Used by the migration's thread only.
/// </summary>
internal sealed unsafe class Placement : IDisposable
{
    /// <summary>The page lies nowhere: it is unused, or was never sent.</summary>
    public const byte None = 0;

    /// <summary>The main host. Sub-host k is <see cref="FirstSub"/> + k.</summary>
    public const byte Main = 1;

    public const byte FirstSub = 2;

    /// <summary>
    /// Pages that go to one sub-host before the next has its turn (1 MiB): neighbours are used together, so they should come
    /// in one run, yet every sub-host should carry its part of any region.
    /// </summary>
    private const long Stripe = 256;

    // Of the main host's room: what pages may fill on their first way there. The rest is for pages that turn out to be hot,
    // for what the guest takes while it moves, and for the pager's headroom.
    private const double FirstFill = 0.80;
    private const double HotFill = 0.92;

    private readonly PageBitmap _kernelPages;
    private readonly long _pageCount;
    private readonly PageBitmap? _hotPages;
    private readonly long _mainOthersRoom;
    private readonly long _mainColdRoom;
    private readonly long _mainHotRoom;
    private readonly long[] _room;
    private readonly long[] _placed;
    private long _stripe = -1;
    private int _stripeSub;
    private long _mainOthers;
    private long _mainCold;
    private byte* _places;

    /// <param name="pageCount">Pages of the VM.</param>
    /// <param name="kernelPages">Pages that must stay on the main host; kept, not owned.</param>
    /// <param name="hotPages">Pages that the guest is likely to want soon: room on the main host is kept for them. Null: that is not known. Kept, not owned.</param>
    /// <param name="mainRoomPages">What the main host may hold resident.</param>
    /// <param name="subRoomPages">What each sub-host may hold.</param>
    public Placement(long pageCount, PageBitmap kernelPages, PageBitmap? hotPages, long mainRoomPages, ReadOnlySpan<long> subRoomPages)
    {
        _pageCount = pageCount;
        _kernelPages = kernelPages;
        _hotPages = hotPages;
        _mainHotRoom = (long)(mainRoomPages * HotFill);
        // Pages come in the order of their addresses, the kernel's among the last: their room is kept from the others.
        _mainOthersRoom = Math.Max(0, (long)(mainRoomPages * FirstFill) - kernelPages.Count());
        _mainColdRoom = Math.Max(0, _mainOthersRoom - (hotPages?.CountWithout(kernelPages) ?? 0));
        _room = new long[FirstSub + subRoomPages.Length];
        _room[Main] = mainRoomPages;
        subRoomPages.CopyTo(_room.AsSpan(FirstSub));
        _placed = new long[_room.Length];
        _places = (byte*)NativeMemory.AllocZeroed((nuint)pageCount);
    }

    /// <summary>Where <paramref name="page"/> is now.</summary>
    public byte this[long page]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((ulong)page, (ulong)_pageCount);
            return _places[page];
        }
    }

    /// <summary>How many pages are placed there now; any thread may read it.</summary>
    public long Placed(int place) => Volatile.Read(ref _placed[place]);

    /// <summary>Decides where <paramref name="page"/> goes now.</summary>
    /// <param name="page">A page about to be sent.</param>
    /// <param name="wasDirty">The guest wrote it after it had been sent.</param>
    /// <param name="before">Where it was; when that is another place and not <see cref="None"/>, it must be discarded there.</param>
    /// <exception cref="MigrationException">No host has room for it.</exception>
    public byte Assign(long page, bool wasDirty, out byte before)
    {
        before = this[page];
        byte place = before;
        if (before == None)
        {
            bool fits = _placed[Main] < _mainHotRoom
                && (_kernelPages[page] || (_mainOthers < _mainOthersRoom && (IsHot(page) || _mainCold < _mainColdRoom)));
            place = fits ? Main : NextSub(page);
        }
        else if (before != Main && wasDirty && _placed[Main] < _mainHotRoom)
        {
            place = Main;
        }

        if (place != before)
        {
            Move(page, before, place);
        }

        return place;
    }

    /// <summary>Forgets <paramref name="page"/>'s place: it is unused now.</summary>
    public void Forget(long page) => Move(page, this[page], None);

    public void Dispose()
    {
        NativeMemory.Free(_places);
        _places = null;
    }

    private void Move(long page, byte from, byte to)
    {
        _placed[from]--;
        _placed[to]++;
        if (!_kernelPages[page])
        {
            int more = to == Main ? 1 : from == Main ? -1 : 0;
            _mainOthers += more;
            _mainCold += IsHot(page) ? 0 : more;
        }

        _places[page] = to;
    }

    private bool IsHot(long page) => _hotPages is not null && _hotPages[page];

    private byte NextSub(long page)
    {
        long stripe = page / Stripe;
        if (stripe != _stripe || _placed[FirstSub + _stripeSub] >= _room[FirstSub + _stripeSub])
        {
            _stripe = stripe;
            _stripeSub = EmptiestSub();
        }

        return (byte)(FirstSub + _stripeSub);
    }

    /// <summary>The sub-host with the largest part of its room left.</summary>
    private int EmptiestSub()
    {
        int best = -1;
        double most = 0;
        for (int sub = 0; sub < _room.Length - FirstSub; sub++)
        {
            double left = _room[FirstSub + sub] == 0 ? 0 : 1.0 - ((double)_placed[FirstSub + sub] / _room[FirstSub + sub]);
            if (left > most)
            {
                most = left;
                best = sub;
            }
        }

        if (best < 0)
        {
            throw new MigrationException(
                "The sub-hosts have no room for the guest's used memory beside the main host's share. "
                + "Add a sub-host, or give the main host more with -MainMemory.");
        }

        return best;
    }
}
