using System.Runtime.InteropServices;

namespace FCtrans.Agent.Paging;

/// <summary>
/// The pages here, oldest first: what the evictor considers next. A ring of 32-bit page numbers (VMs up to 16 TiB) in native memory that
/// grows as needed; a page is in it at most once, so it never holds more than the VM has pages. Safe from any thread.
/// </summary>
internal sealed unsafe class PageQueue : IDisposable
{
    private readonly Lock _lock = new();
    private readonly AtomicPageBits _queued;
    private uint* _ring;
    private long _capacity = 4096;
    private long _head;
    private long _count;

    public PageQueue(long pageCount)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(pageCount, uint.MaxValue);
        _queued = new(pageCount);
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

            _ring[(_head + _count) & (_capacity - 1)] = (uint)page;
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
            _head = (_head + 1) & (_capacity - 1);
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

    private void Grow()
    {
        uint* bigger = (uint*)NativeMemory.Alloc((nuint)_capacity * 2, sizeof(uint));
        for (long i = 0; i < _count; i++)
        {
            bigger[i] = _ring[(_head + i) & (_capacity - 1)];
        }

        NativeMemory.Free(_ring);
        _ring = bigger;
        _head = 0;
        _capacity *= 2;
    }
}
