using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Asks a store for pages, many at once. What was asked for stays on record until its answer is here, and is asked for again on each new
/// connection: a cut loses nothing. An answer that comes twice is known by its sequence number (slot and generation) and thrown away.
/// <para>
/// One thread, the fault thread, asks and reads the answers too: while it waits for a fault it waits for these as well, so that a page
/// comes without one more thread being woken. The channel's own thread connects, and watches for the end of the connection.
/// </para>
/// </summary>
internal sealed unsafe class DemandChannel : StoreChannel
{
    private const int SlotBits = 9;
    private const int SlotCount = 1 << SlotBits;

    private readonly Lock _lock = new();

    /// <summary>Held while answers are read: the connection is not disposed meanwhile.</summary>
    private readonly Lock _reading = new();

    private readonly Slot[] _slots = new Slot[SlotCount];
    private readonly int[] _free = new int[SlotCount];
    private readonly IPageArrivals _arrivals;
    private volatile Action _connectionChanged = static () => { };
    private volatile FrameConnection? _readable;
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

    /// <inheritdoc/>
    public override int Outstanding => SlotCount - Volatile.Read(ref _freeCount);

    /// <summary>No more can be asked for now. Only the one thread that asks can make it true.</summary>
    public bool IsBusy => Volatile.Read(ref _freeCount) == 0;

    /// <summary>What the fault thread polls; -1 while there is no connection. May be stale for a moment: then poll says so.</summary>
    public int Descriptor
    {
        get
        {
            lock (_reading)
            {
                return _readable?.Descriptor ?? -1;
            }
        }
    }

    /// <summary>Says whom to tell that <see cref="Descriptor"/> is another one.</summary>
    public void WhenConnectionChanges(Action tell)
    {
        _connectionChanged = tell;
        tell();
    }

    /// <summary>Asks for a page; not when <see cref="IsBusy"/>. Goes out at <see cref="Flush"/>, or when there is a connection.</summary>
    public void Get(long page, bool forWrite)
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

    /// <summary>Takes the answers that are here and hands them on, without blocking. For the thread that polls <see cref="Descriptor"/>.</summary>
    public void ReadAnswers()
    {
        lock (_reading)
        {
            if (_readable is not { } connection)
            {
                return;
            }

            try
            {
                while (connection.ReadAvailable())
                {
                    while (connection.TryReadFrame(out var frame, out var payload))
                    {
                        Answered(connection, frame, payload);
                    }

                    if (!connection.MayHaveMore)
                    {
                        return;
                    }
                }
            }
            catch (IOException)
            {
                // The channel's thread sees the end, and connects anew.
                _readable = null;
                connection.Abort();
            }
        }
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

    protected override void Read(FrameConnection connection)
    {
        lock (_reading)
        {
            _readable = connection;
        }

        _connectionChanged();
        try
        {
            // Readable again and again while the fault thread has answers to read; what ends this is the end of the connection.
            var descriptor = new PollDescriptor { Fd = connection.Descriptor, Events = PollDescriptor.ReadHangUp };
            while ((descriptor.ReturnedEvents & (PollDescriptor.ReadHangUp | PollDescriptor.HangUp | PollDescriptor.Error)) == 0)
            {
                _ = Libc.Poll(&descriptor, 1, -1);
            }
        }
        finally
        {
            lock (_reading)
            {
                _readable = null;
            }

            _connectionChanged();
        }
    }

    protected override void Received(FrameConnection connection, in FrameHeader frame)
    {
        // Read() reads none.
    }

    private void Answered(FrameConnection connection, in FrameHeader frame, ReadOnlySpan<byte> payload)
    {
        int index = (int)(frame.Sequence & (SlotCount - 1));
        Slot slot;
        lock (_lock)
        {
            slot = _slots[index];
            // Asked twice over a cut: the first answer freed the slot.
            if (!slot.Active || Sequence(index, slot.Generation) != frame.Sequence)
            {
                return;
            }

            // Looked at before the slot is free: what is asked for stays on record until it is answered, however a peer errs.
            byte presence = payload.Length == 0 ? byte.MaxValue : payload[0];
            if (frame.FirstPage != slot.Page || frame.PageCount != 1 || presence > 1
                || payload.Length != 1 + presence * PageIndex.PageSize)
            {
                throw connection.Refuse($"The answer for page {frame.FirstPage} is not what was asked for.");
            }

            _slots[index].Active = false;
            _free[_freeCount++] = index;
        }

        if (payload.Length > 1)
        {
            // The connection's buffer is pinned.
            _arrivals.Arrived(
                Options.Index, slot.Page, slot.ForWrite, (byte*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(payload[1..])));
        }
        else
        {
            _arrivals.Missing(Options.Index, slot.Page);
        }
    }

    /// <summary>Ends the requests for pages that another store has, if this one is away; what only it has stays on record.</summary>
    public void TakeBack()
    {
        for (int i = 0; Connection is null && i < SlotCount; i++)
        {
            long page;
            lock (_lock)
            {
                // With a connection, somebody may be reading its answer; without one, nobody can.
                if (Connection is not null || !_slots[i].Active || !_arrivals.IsElsewhere(Options.Index, _slots[i].Page))
                {
                    continue;
                }

                page = _slots[i].Page;
                _slots[i].Active = false;
                _free[_freeCount++] = i;
            }

            _arrivals.Unanswered(Options.Index, new(page, 1));
        }
    }

    protected override void Disconnected(string error) => TakeBack();

    private static uint Sequence(int index, uint generation) => (generation << SlotBits) | (uint)index;

    private struct Slot
    {
        public uint Generation;
        public bool Active;
        public bool ForWrite;
        public long Page;
    }
}
