using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Reclaim;

/// <summary>
/// Free blocks that go through the steps of a <see cref="Reclaimer"/> together, with the pages that hold their heads. Neighbours are frozen and
/// dropped as one. One thread; allocates nothing.
/// </summary>
internal sealed class ReclaimBatch(GuestRam ram, IReclaimTarget target)
{
    private const int MaxBlocks = 512;
    private const int MaxHeads = 64;

    private readonly Block[] _blocks = new Block[MaxBlocks];
    private readonly long[] _heads = new long[MaxHeads];
    private int _count;
    private int _headCount;
    private long _pages;

    /// <summary>The block that <see cref="DropPiece"/> has come to, and how many pages of it have gone.</summary>
    private int _next;
    private long _gone;

    public Span<Block> Blocks => _blocks.AsSpan(0, _count);

    public bool HasRoomFor(PageRange block, long head)
        => _count < MaxBlocks && (IsLastHead(head) || _headCount < MaxHeads) && (_pages == 0 || _pages + block.Count <= target.BatchPages);

    public void Add(in Block block)
    {
        if (!IsLastHead(block.Head))
        {
            _heads[_headCount++] = block.Head;
        }

        _blocks[_count++] = block;
        _pages += block.Pages.Count;
    }

    public void Clear()
    {
        _count = _headCount = _next = 0;
        _pages = _gone = 0;
    }

    /// <summary>Freezes the heads, then holds the blocks whose heads are frozen.</summary>
    public void Freeze()
    {
        for (int i = 0; i < _headCount; i++)
        {
            if (!target.Freeze(_heads[i]))
            {
                foreach (ref var block in Blocks)
                {
                    block.HeadIsLoose |= block.Head == _heads[i];
                }

                _heads[i] = -1;
            }
        }

        for (int i = 0, count; i < _count; i += count)
        {
            count = RunLength(i, static (first, next) => first.HeadIsLoose == next.HeadIsLoose);
            bool held = !_blocks[i].HeadIsLoose && target.Hold(Range(i, count));
            for (int b = i; b < i + count; b++)
            {
                _blocks[b].Held = held;
            }
        }
    }

    public void Thaw()
    {
        for (int i = 0; i < _headCount; i++)
        {
            if (_heads[i] >= 0)
            {
                target.Thaw(_heads[i]);
            }
        }
    }

    /// <summary>Drops, or lets go, the next of what is held, at most <see cref="IReclaimTarget.PiecePages"/>; false when that was all.</summary>
    /// <param name="freed">Grows by the pages that went.</param>
    public bool DropPiece(ref long freed)
    {
        while (_next < _count)
        {
            int count = RunLength(_next, static (first, next) => first.Drop == next.Drop && first.Held == next.Held);
            var run = Range(_next, count);
            if (!_blocks[_next].Drop)
            {
                if (_blocks[_next].Held)
                {
                    target.LetGo(run);
                }

                _next += count;
                continue;
            }

            var piece = new PageRange(run.First + _gone, Math.Min(run.Count - _gone, target.PiecePages));
            freed += target.Drop(piece);
            _gone += piece.Count;
            if (_gone == run.Count)
            {
                _gone = 0;
                _next += count;
            }

            return true;
        }

        return false;
    }

    private bool IsLastHead(long head) => _headCount > 0 && _heads[_headCount - 1] == head;

    private int RunLength(int first, Func<Block, Block, bool> alike)
    {
        long end = ram.BlockOf(_blocks[first].Pages.First).EndPage;
        int next = first + 1;
        while (next < _count && _blocks[next].Pages.First == _blocks[next - 1].Pages.End && _blocks[next].Pages.First < end
            && alike(_blocks[first], _blocks[next]))
        {
            next++;
        }

        return next - first;
    }

    private PageRange Range(int first, int count) => new(_blocks[first].Pages.First, _blocks[first + count - 1].Pages.End - _blocks[first].Pages.First);

    /// <summary>One free block: its pages, and where its head's structure lies: address in the guest's kernel, guest-physical, and page.</summary>
    internal record struct Block(PageRange Pages, int Order, ulong Address, ulong Physical, long Head)
    {
        /// <summary>Its head could not be frozen.</summary>
        public bool HeadIsLoose;
        public bool Held;

        /// <summary>Held, and still free at the look under the freeze.</summary>
        public bool Drop;
    }
}
