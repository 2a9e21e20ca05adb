using System.Runtime.InteropServices;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Asks a store for pages that nobody waits for yet: on a connection of its own, read by a thread of its own, so that these pages never
/// stand in the way of a demanded one. What a cut has left unanswered is not asked for again: the pages are again what they were, and
/// whoever has reached one meanwhile asks by <see cref="DemandChannel"/>, each of the store that has it.
/// <para>One thread asks.</para>
/// </summary>
internal sealed unsafe class PrefetchChannel : StoreChannel
{
    /// <summary>Of one request: a page of it that the guest has reached meanwhile waits for the others, so it is not long.</summary>
    public const int MaxPages = 16;

    /// <summary>Pages under way at once: a page among them that the guest has reached meanwhile waits for those before it.</summary>
    public const int MostAhead = 256;

    /// <summary>While others of the guest's threads wait already: one walk's longest window.</summary>
    public const int MostAheadWhileOthersWait = 64;

    private const int SlotBits = 5;
    private const int SlotCount = 1 << SlotBits;

    private readonly Lock _lock = new();
    private readonly Slot[] _slots = new Slot[SlotCount];
    private readonly byte[] _presence = new byte[MaxPages];
    private byte* _content = (byte*)NativeMemory.AlignedAlloc(MaxPages * PageIndex.PageSize, PageIndex.PageSize);
    private readonly IPageArrivals _arrivals;
    private ulong _used;
    private int _outstanding;

    public PrefetchChannel(RemoteStoreOptions options, IPageArrivals arrivals)
        : base(options, ConnectionPurpose.Demand)
    {
        _arrivals = arrivals;
    }

    /// <inheritdoc/>
    public override int Outstanding => Volatile.Read(ref _outstanding);

    /// <summary>Whether it is worth asking: there is a connection, and it has not too much to do already.</summary>
    public bool IsReady => IsConnected && Volatile.Read(ref _used) != uint.MaxValue;

    /// <summary>Whether one more page may be asked for, beside those that are and <paramref name="gathered"/> that are about to be.</summary>
    public bool Takes(int gathered, bool othersWait) =>
        IsReady && Outstanding + gathered < (othersWait ? MostAheadWhileOthersWait : MostAhead);

    /// <summary>Asks for pages, at most <see cref="MaxPages"/>; only when <see cref="IsReady"/>. Goes out at <see cref="Flush"/>.</summary>
    public void Get(PageRange range, bool forWrite)
    {
        uint sequence;
        FrameConnection? connection;
        lock (_lock)
        {
            int index = System.Numerics.BitOperations.TrailingZeroCount(~_used);
            if (index >= SlotCount || range.Count > MaxPages)
            {
                throw new InvalidOperationException("Too many pages are under way.");
            }

            _used |= 1UL << index;
            _outstanding += (int)range.Count;
            ref var slot = ref _slots[index];
            connection = Connection;
            slot = new() { Generation = slot.Generation + 1, Range = range, ForWrite = forWrite, SentOn = connection };
            sequence = Sequence(index, slot.Generation);
        }

        try
        {
            connection?.Send(FrameHeader.Of(FrameType.Get, range, sequence));
        }
        catch (IOException)
        {
            connection!.Abort();
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
        NativeMemory.AlignedFree(_content);
        _content = null;
    }

    /// <summary>Asks for what was asked for just before there was this connection.</summary>
    protected override void Connected(FrameConnection connection)
    {
        lock (_lock)
        {
            for (int i = 0; i < SlotCount; i++)
            {
                if ((_used >> i & 1) != 0 && _slots[i].SentOn != connection)
                {
                    _slots[i].SentOn = connection;
                    connection.Send(FrameHeader.Of(FrameType.Get, _slots[i].Range, Sequence(i, _slots[i].Generation)));
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
            // Each connection carries each request once, and answers of an earlier one ended with it.
            if ((_used >> index & 1) == 0 || Sequence(index, slot.Generation) != frame.Sequence || frame.Range != slot.Range)
            {
                throw connection.Refuse($"The answer for {frame.PageCount} pages from {frame.FirstPage} is not what was asked for.");
            }
        }

        var presence = _presence.AsSpan(0, (int)slot.Range.Count);
        connection.ReadPayload(presence);
        int present = presence.Count((byte)1);
        if (presence.IndexOfAnyExcept((byte)0, (byte)1) >= 0 || frame.PayloadBytes != presence.Length + present * PageIndex.PageSize)
        {
            throw connection.Refuse("An answer's content does not fit what it says of itself.");
        }

        connection.ReadPayload(new Span<byte>(_content, present * PageIndex.PageSize));
        // Before the slot is free: the pages are under way until they have arrived.
        HandOn(slot, presence);
        lock (_lock)
        {
            Free(index);
        }
    }

    /// <summary>Ends all requests, if the store is away.</summary>
    public void TakeBack()
    {
        for (int i = 0; Connection is null && i < SlotCount; i++)
        {
            PageRange range;
            lock (_lock)
            {
                if (Connection is not null || (_used >> i & 1) == 0)
                {
                    continue;
                }

                range = _slots[i].Range;
                Free(i);
            }

            _arrivals.Unanswered(Options.Index, range);
        }
    }

    protected override void Disconnected(string error) => TakeBack();

    private void Free(int index)
    {
        _used &= ~(1UL << index);
        _outstanding -= (int)_slots[index].Range.Count;
        // A connection that has ended has large buffers.
        _slots[index].SentOn = null;
    }

    private static uint Sequence(int index, uint generation) => (generation << SlotBits) | (uint)index;

    private void HandOn(in Slot slot, ReadOnlySpan<byte> presence)
    {
        byte* content = _content;
        for (int i = 0; i < presence.Length;)
        {
            int run = presence[i..].IndexOfAnyExcept(presence[i]);
            run = run < 0 ? presence.Length - i : run;
            var range = new PageRange(slot.Range.First + i, run);
            if (presence[i] == 1)
            {
                _arrivals.ArrivedEarly(Options.Index, range, slot.ForWrite, content);
                content += range.Bytes;
            }
            else
            {
                for (long page = range.First; page < range.End; page++)
                {
                    _arrivals.Missing(Options.Index, page);
                }
            }

            i += run;
        }
    }

    private struct Slot
    {
        public uint Generation;
        public bool ForWrite;
        public PageRange Range;

        /// <summary>Each connection carries each request once.</summary>
        public FrameConnection? SentOn;
    }
}
