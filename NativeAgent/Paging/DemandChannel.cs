using System.Runtime.InteropServices;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>Takes the answers to the pages asked for. Called on the store's answer thread; must not block on the network.</summary>
internal unsafe interface IPageArrivals
{
    /// <param name="content">The page, 4096 bytes, aligned; good until the call returns.</param>
    /// <param name="forWrite">As given when it was asked for.</param>
    /// <param name="startedAt">As given when it was asked for.</param>
    void Arrived(int sub, long page, bool forWrite, long startedAt, byte* content);

    /// <summary>The store answered that it does not have the page.</summary>
    void Missing(int sub, long page);
}

/// <summary>
/// Asks a store for pages, many at once. What was asked for stays on record until its answer is here, and is asked for again on each new
/// connection: a cut loses nothing. An answer that comes twice is known by its sequence number (slot and generation) and thrown away.
/// </summary>
internal sealed unsafe class DemandChannel : StoreChannel
{
    private const int SlotBits = 9;
    private const int SlotCount = 1 << SlotBits;

    private readonly Lock _lock = new();
    private readonly Slot[] _slots = new Slot[SlotCount];
    private readonly int[] _free = new int[SlotCount];
    private readonly byte* _page = (byte*)NativeMemory.AlignedAlloc(PageIndex.PageSize, PageIndex.PageSize);
    private readonly byte[] _rest = new byte[4096];
    private readonly IPageArrivals _arrivals;
    private int _freeCount = SlotCount;

    public DemandChannel(RemoteStoreOptions options, IPageArrivals arrivals)
        : base(options, ConnectionPurpose.Demand)
    {
        _arrivals = arrivals;
        for (int i = 0; i < SlotCount; i++)
        {
            _free[i] = i;
        }
    }

    /// <summary>Pages asked for and not here yet.</summary>
    public int Outstanding => SlotCount - Volatile.Read(ref _freeCount);

    /// <summary>No more can be asked for now. Only the one thread that asks can make it true.</summary>
    public bool IsBusy => Volatile.Read(ref _freeCount) == 0;

    /// <summary>Asks for a page; not when <see cref="IsBusy"/>. Goes out at <see cref="Flush"/>, or when there is a connection.</summary>
    public void Get(long page, bool forWrite, long startedAt)
    {
        uint sequence;
        FrameConnection? connection;
        lock (_lock)
        {
            if (_freeCount == 0)
            {
                throw new InvalidOperationException("Too many pages are under way.");
            }

            int index = _free[--_freeCount];
            ref var slot = ref _slots[index];
            slot.Generation++;
            slot.Active = true;
            slot.Page = page;
            slot.ForWrite = forWrite;
            slot.StartedAt = startedAt;
            sequence = Sequence(index, slot.Generation);
            // Taken under the lock: either the new connection's thread finds this slot, or we see its connection.
            connection = Connection;
        }

        if (connection is not null)
        {
            try
            {
                connection.Send(FrameHeader.Of(FrameType.Get, new PageRange(page, 1), sequence));
            }
            catch (IOException)
            {
                connection.Abort();
            }
        }
    }

    public void Flush()
    {
        var connection = Connection;
        try
        {
            connection?.Flush();
        }
        catch (IOException)
        {
            connection!.Abort();
        }
    }

    public override void Dispose()
    {
        base.Dispose();
        NativeMemory.AlignedFree(_page);
    }

    protected override void Connected(FrameConnection connection)
    {
        lock (_lock)
        {
            for (int i = 0; i < SlotCount; i++)
            {
                if (_slots[i].Active)
                {
                    connection.Send(FrameHeader.Of(
                        FrameType.Get, new PageRange(_slots[i].Page, 1), Sequence(i, _slots[i].Generation)));
                }
            }
        }

        connection.Flush();
    }

    protected override void Received(FrameConnection connection, in FrameHeader frame)
    {
        int index = (int)(frame.Sequence & (SlotCount - 1));
        Slot slot;
        lock (_lock)
        {
            slot = _slots[index];
        }

        // Asked twice over a cut: the first answer freed the slot.
        if (!slot.Active || Sequence(index, slot.Generation) != frame.Sequence)
        {
            Skip(connection, frame.PayloadBytes);
            return;
        }

        byte presence = 0;
        connection.ReadPayload(new Span<byte>(ref presence));
        if (frame.FirstPage != slot.Page || frame.PageCount != 1 || presence > 1
            || frame.PayloadBytes != 1 + presence * PageIndex.PageSize)
        {
            throw connection.Refuse($"The answer for page {frame.FirstPage} is not what was asked for.");
        }

        if (presence == 1)
        {
            connection.ReadPayload(new Span<byte>(_page, PageIndex.PageSize));
        }

        lock (_lock)
        {
            _slots[index].Active = false;
            _free[_freeCount++] = index;
        }

        if (presence == 1)
        {
            _arrivals.Arrived(Options.Index, slot.Page, slot.ForWrite, slot.StartedAt, _page);
        }
        else
        {
            _arrivals.Missing(Options.Index, slot.Page);
        }
    }

    protected override void Disconnected(string error)
    {
        // What was asked for stays on record.
    }

    private static uint Sequence(int index, uint generation) => (generation << SlotBits) | (uint)index;

    private void Skip(FrameConnection connection, int bytes)
    {
        while (bytes > 0)
        {
            int part = Math.Min(bytes, _rest.Length);
            connection.ReadPayload(_rest.AsSpan(0, part));
            bytes -= part;
        }
    }

    private struct Slot
    {
        public uint Generation;
        public bool Active;
        public bool ForWrite;
        public long Page;
        public long StartedAt;
    }
}
