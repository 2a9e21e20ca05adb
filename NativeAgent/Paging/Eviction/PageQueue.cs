using System.Runtime.InteropServices;

namespace FCtrans.Agent.Paging;

/// <summary>
/// The pages here, oldest first: what the evictor considers next. A ring of 32-bit page numbers (VMs up to 16 TiB) in native memory that
/// grows as needed; a page is in it at most once, so it never holds more than the VM has pages. Safe from any thread.
/// </summary>
internal sealed unsafe class PageQueue : IDisposable
{
    private const long LeastCapacity = 4096;

    private readonly Lock _lock = new();
    private readonly AtomicPageBits _queued;
    private uint* _ring;
    private long _capacity;
    private long _head;
    private long _count;

    /// <param name="pageCount">Pages of the VM.</param>
    /// <param name="expected">Pages that are to be here at most: room for so many is there from the beginning, and no more until there are more.</param>
    public PageQueue(long pageCount, long expected = 0)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(pageCount, uint.MaxValue);
        _queued = new(pageCount);
        _capacity = Math.Max(LeastCapacity, Math.Min(expected, pageCount));
        _ring = (uint*)NativeMemory.Alloc((nuint)_capacity, sizeof(uint));
    }

    public long Count => Volatile.Read(ref _count);

    /// <summary>Appends a page unless it is in the queue already.</summary>
    public void Push(long page)
    {
        lock (_lock)
        {
            // Under the lock: between a pop and its clear, a push would think the page is still here and lose it.
            if (!_queued.TrySet(page))
            {
                return;
            }

            if (_count == _capacity)
            {
                Grow();
            }

            long at = _head + _count;
            _ring[at >= _capacity ? at - _capacity : at] = (uint)page;
            _count++;
        }
    }

    /// <summary>Takes the oldest page.</summary>
    public bool TryPop(out long page)
    {
        lock (_lock)
        {
            if (_count == 0)
            {
                page = -1;
                return false;
            }

            page = _ring[_head];
            _head = _head + 1 == _capacity ? 0 : _head + 1;
            _count--;
            _queued.TryClear(page);
            return true;
        }
    }

    public void Dispose()
    {
        NativeMemory.Free(_ring);
        _ring = null;
        _queued.Dispose();
    }

    /// <summary>By an eighth: where it is large, its memory is moved, not copied, and little of it stays unused.</summary>
    private void Grow()
    {
        long more = Math.Max(LeastCapacity, _capacity / 8);
        _ring = (uint*)NativeMemory.Realloc(_ring, (nuint)((_capacity + more) * sizeof(uint)));
        // It is full: what lies before the end of the old ring comes to lie before the end of the new one.
        long tail = _capacity - _head;
        Buffer.MemoryCopy(_ring + _head, _ring + _head + more, tail * sizeof(uint), tail * sizeof(uint));
        _head += more;
        _capacity += more;
    }
}
