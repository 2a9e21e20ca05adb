using System.Numerics;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Tracking;

/// <summary>
/// The unused pages of one VM, kept from look to look, with what kind each is; and what the last look changed. Six bits a page at the
/// most, in memory that the kernel hands out only where a bit is set. One thread at a time; a look allocates nothing.
/// </summary>
internal sealed class UnusedSet(long pageCount) : IDisposable
{
    private const int Chunk = 512;

    private bool _filled;

    /// <summary>Pages that take memory nowhere. The three sets are disjoint.</summary>
    public PageBitmap NeverTouched { get; private set; } = new(pageCount);

    /// <summary>Pages that are free in the guest and take memory.</summary>
    public PageBitmap Free { get; private set; } = new(pageCount);

    /// <summary>Pages taken by a balloon that take memory.</summary>
    public PageBitmap Ballooned { get; private set; } = new(pageCount);

    public long NeverTouchedPages { get; private set; }

    public long FreePages { get; private set; }

    public long BalloonedPages { get; private set; }

    /// <summary>Pages that the last look found used, and the one before not; 0 after the first.</summary>
    public long BecameUsed { get; private set; }

    /// <summary>Pages that the last look found unused, and the one before used; 0 after the first.</summary>
    public long BecameUnused { get; private set; }

    /// <summary>
    /// For a VM whose memory has grown or shrunk: pages keep what they were by their index, and one that there was not before counts as
    /// used until the next look.
    /// </summary>
    public void Resize(long pages)
    {
        if (pages != NeverTouched.PageCount)
        {
            NeverTouched = Resized(NeverTouched, pages);
            Free = Resized(Free, pages);
            Ballooned = Resized(Ballooned, pages);
        }
    }

    /// <summary>Takes over what a look has found.</summary>
    /// <param name="unused">All unused pages, never touched or not.</param>
    /// <param name="ballooned">Those taken by a balloon.</param>
    /// <param name="neverTouched">Those that take memory nowhere, used or not; null: that is not known.</param>
    /// <param name="sink">Told of what is something else than before, from the second look on; may be null.</param>
    public void Update(PageBitmap unused, PageBitmap ballooned, PageBitmap? neverTouched, IMemoryUseSink? sink)
    {
        NeverTouchedPages = FreePages = BalloonedPages = BecameUsed = BecameUnused = 0;
        var changes = new ChangeRuns(_filled ? sink : null);
        for (long first = 0; first < NeverTouched.WordCount; first += Chunk)
        {
            int count = (int)Math.Min(Chunk, NeverTouched.WordCount - first);
            var all = unused.Words(first, count);
            var balloon = ballooned.Words(first, count);
            var hole = neverTouched is null ? default : neverTouched.Words(first, count);
            var oldNever = NeverTouched.Words(first, count);
            var oldFree = Free.Words(first, count);
            var oldBalloon = Ballooned.Words(first, count);
            for (int w = 0; w < count; w++)
            {
                ulong n = hole.IsEmpty ? 0 : hole[w];
                ulong b = balloon[w] & ~n;
                ulong f = all[w] & ~n & ~b;
                NeverTouchedPages += BitOperations.PopCount(n);
                BalloonedPages += BitOperations.PopCount(b);
                FreePages += BitOperations.PopCount(f);
                ulong differs = (n ^ oldNever[w]) | (b ^ oldBalloon[w]) | (f ^ oldFree[w]);
                if (differs == 0)
                {
                    continue;
                }

                if (_filled)
                {
                    ulong was = oldNever[w] | oldFree[w] | oldBalloon[w];
                    ulong now = n | b | f;
                    BecameUsed += BitOperations.PopCount(was & ~now);
                    BecameUnused += BitOperations.PopCount(now & ~was);
                    changes.Add(first + w, differs, n, f, b);
                }

                oldNever[w] = n;
                oldFree[w] = f;
                oldBalloon[w] = b;
            }
        }

        changes.End();
        _filled = true;
    }

    /// <summary>What a page is.</summary>
    public MemoryUse UseOf(long page) => NeverTouched[page] ? MemoryUse.NeverTouched
        : Free[page] ? MemoryUse.Free
        : Ballooned[page] ? MemoryUse.Ballooned : MemoryUse.Used;

    public void Dispose()
    {
        NeverTouched.Dispose();
        Free.Dispose();
        Ballooned.Dispose();
    }

    private static PageBitmap Resized(PageBitmap old, long pages)
    {
        var resized = new PageBitmap(pages);
        for (long from = 0; old.NextRun(from, long.MaxValue, out var run) && run.First < pages; from = run.End)
        {
            resized.Fill(new(run.First, Math.Min(run.End, pages) - run.First), true);
        }

        old.Dispose();
        return resized;
    }

    /// <summary>Joins changed pages to runs.</summary>
    private ref struct ChangeRuns(IMemoryUseSink? sink)
    {
        private long _first;
        private long _end;
        private MemoryUse _use;

        public void Add(long word, ulong pages, ulong never, ulong free, ulong balloon)
        {
            while (sink is not null && pages != 0)
            {
                int bit = BitOperations.TrailingZeroCount(pages);
                var use = (never >> bit & 1) != 0 ? MemoryUse.NeverTouched
                    : (free >> bit & 1) != 0 ? MemoryUse.Free
                    : (balloon >> bit & 1) != 0 ? MemoryUse.Ballooned : MemoryUse.Used;
                ulong same = use switch
                {
                    MemoryUse.NeverTouched => never,
                    MemoryUse.Free => free,
                    MemoryUse.Ballooned => balloon,
                    _ => ~(never | free | balloon),
                } & pages;
                int length = BitOperations.TrailingZeroCount(~(same >> bit));
                Add(new((word << 6) + bit, length), use);
                pages &= length + bit >= 64 ? 0 : ulong.MaxValue << (bit + length);
            }
        }

        public void End()
        {
            if (_end > _first)
            {
                sink!.Changed(new(_first, _end - _first), _use);
            }

            _first = _end = 0;
        }

        private void Add(PageRange run, MemoryUse use)
        {
            if (_end != run.First || _use != use)
            {
                End();
                _first = run.First;
                _use = use;
            }

            _end = run.End;
        }
    }
}
