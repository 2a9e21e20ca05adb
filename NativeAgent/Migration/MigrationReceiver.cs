using System.Globalization;
using System.Net;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Migration;

/// <summary>
/// The main host's end of a migration: puts pages where they belong, keeps the page table in step, and acts on the control
/// messages. One thread a connection. The source sends no page on two connections within a round, and a barrier ends each
/// round, so threads never work on the same page at once.
/// </summary>
/// <param name="ram">Not owned.</param>
/// <param name="packed">Gets the pages that come packed and have room there; not owned.</param>
/// <param name="table">Not owned.</param>
/// <param name="pinned">Gets the pages that should stay here; not owned.</param>
/// <param name="stores">How many sub-hosts there are.</param>
/// <param name="events">What the control messages make happen.</param>
internal sealed unsafe class MigrationReceiver(GuestRam ram, PackedPages packed, PageTable table, PageBitmap pinned, int stores, IMigrationEvents events)
{
    private readonly Lock _writing = new();
    private volatile bool _tableComplete;
    private volatile bool _deviceStateComplete;
    private volatile bool _leftAtSource;
    private volatile bool _namesSource;

    /// <summary>
    /// The number of the last control message that was applied. A connection that was lost is followed by another, which repeats what the
    /// source does not know to be applied. Of one connection's thread at a time: a listener lets the next one in when the last has gone.
    /// </summary>
    private uint _applied;

    /// <summary>True where all had been applied before this process began, so that only the last step may come, or come again.</summary>
    public bool TableIsComplete
    {
        init
        {
            _tableComplete = _deviceStateComplete = value;
            _applied = value ? uint.MaxValue : 0;
        }
    }

    /// <summary>Serves one connection of the source until it ends.</summary>
    public void Serve(FrameConnection connection)
    {
        byte[] buffer = GC.AllocateUninitializedArray<byte>(FrameHeader.MaxPayloadBytes, pinned: true);
        byte[] unpacked = GC.AllocateUninitializedArray<byte>(
            Math.Max(PageCompression.BlockPages, RowCodec.MaxPages) * PageIndex.PageSize, pinned: true);
        using var filler = new HoleFiller(_writing);
        while (connection.Read(out var header, buffer))
        {
            var payload = buffer.AsSpan(0, header.PayloadBytes);
            if (connection.Purpose == ConnectionPurpose.Control && header.Sequence != 0 && !IsNew(header, connection))
            {
                continue;
            }

            if (_tableComplete && header.Type is FrameType.Pages or FrameType.CompressedPages or FrameType.RowPages or FrameType.ZeroPages
                or FrameType.Discard or FrameType.Located or FrameType.Pinned)
            {
                // From here on the page table is the pager's: a late page would overwrite what the guest does.
                throw new ProtocolException($"{header.Type} came after the table was complete.");
            }

            switch (header.Type)
            {
                case FrameType.Pages:
                    Store(connection, filler, header.Range, payload);
                    break;
                case FrameType.CompressedPages:
                    var pages = unpacked.AsSpan(0, (int)header.Range.Bytes);
                    PageCompression.Decompress(payload, pages);
                    Store(connection, filler, header.Range, pages);
                    break;
                case FrameType.RowPages:
                    StoreRows(connection, filler, header.Range, payload, unpacked);
                    break;
                case FrameType.ZeroPages:
                case FrameType.Discard:
                    // A page of zeros needs no memory: an unused page is a page of zeros at its first touch.
                    Drop(header.Range);
                    break;
                case FrameType.Located:
                    // The one after the last sub-host's is the source's own, which says where it listens before the table is complete.
                    _namesSource |= header.Flags == stores;
                    if (header.Flags > stores)
                    {
                        throw new ProtocolException($"There is no store {header.Flags}.");
                    }

                    packed.Remove(header.Range);
                    table.SetRemote(header.Range, header.Flags);
                    break;
                case FrameType.Pinned:
                    pinned.Fill(header.Range, true);
                    break;
                case FrameType.Barrier:
                    // The last one comes before the table is complete: while the guest is paged here, none of its RAM is mapped.
                    filler.Release();
                    connection.Send(FrameHeader.Of(FrameType.BarrierDone, header.Sequence));
                    connection.Flush();
                    break;
                case FrameType.DeviceState:
                    DeviceState(payload, last: header.Flags == 1, connection);
                    break;
                case FrameType.Control when payload.Length > 0:
                    Control((ControlCode)payload[0], System.Text.Encoding.UTF8.GetString(payload[1..]), connection);
                    break;
                default:
                    throw new ProtocolException($"{header.Type} has no meaning here.");
            }
        }
    }

    /// <summary>A message that has been applied before is only answered once more.</summary>
    private bool IsNew(in FrameHeader header, FrameConnection connection)
    {
        if (header.Type == FrameType.Barrier)
        {
            return true;
        }

        if (header.Sequence > _applied)
        {
            // Set before it is applied: one that fails ends the migration, and is never tried twice.
            _applied = header.Sequence;
            return true;
        }

        if (header.Type == FrameType.DeviceState && header.Flags == 1)
        {
            connection.SendText(FrameType.Control, (byte)ControlCode.Ready, "");
        }

        return false;
    }

    private void DeviceState(ReadOnlySpan<byte> piece, bool last, FrameConnection connection)
    {
        if (_deviceStateComplete || (last && !_tableComplete))
        {
            throw new ProtocolException("The device state came out of order.");
        }

        _deviceStateComplete = last;
        events.DeviceState(piece, last);
        if (last)
        {
            connection.SendText(FrameType.Control, (byte)ControlCode.Ready, "");
        }
    }

    private void Control(ControlCode code, string text, FrameConnection connection)
    {
        switch (code)
        {
            case ControlCode.TableComplete when _tableComplete || (_namesSource && !_leftAtSource):
                throw new ProtocolException("The table can't be complete now.");
            case ControlCode.TableComplete:
                _tableComplete = true;
                events.TableComplete();
                break;
            case ControlCode.LeftAtSource:
                if (_tableComplete || _leftAtSource || !int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int port) || port is < 1 or > 65535)
                {
                    throw new ProtocolException("The source's port for what it has left is none.");
                }

                _leftAtSource = true;
                events.LeftAtSource(connection.RemoteAddress, port);
                break;
            case ControlCode.Commit:
                events.Commit();
                connection.SendText(FrameType.Control, (byte)ControlCode.Running, "");
                break;
            case ControlCode.Abort:
                events.Abort(text);
                break;
            default:
                throw new ProtocolException($"Control message {(byte)code} has no meaning here.");
        }
    }

    /// <summary>
    /// Most of an idle guest's memory that comes at all: its kernel's tables of what nobody uses. They stay packed until somebody needs one, so that no
    /// page is made of them.
    /// </summary>
    private void StoreRows(FrameConnection connection, HoleFiller filler, PageRange range, ReadOnlySpan<byte> rows, Span<byte> unpacked)
    {
        Diagnostics.FailurePoint.Reach("main.receiving");
        var runs = new RowRuns(range, rows);
        while (runs.Next(out var run, out var part, out bool fit))
        {
            if (!fit)
            {
                RowCodec.Decode(part, unpacked[..(int)run.Bytes]);
                Store(connection, filler, run, unpacked[..(int)run.Bytes]);
                continue;
            }

            int errno = packed.Put(run, part);
            if (errno != 0)
            {
                throw connection.Refuse(
                    $"the VM's memory on the main host could not be written ({Errno.Name(errno)}). {Errno.Remedy(errno)}");
            }

            for (long page = run.First; page < run.End; page++)
            {
                if (table[page].State == PageState.Resident)
                {
                    // What the file has is old.
                    Punch(new(page, 1));
                }
            }

            table.SetPacked(run);
        }
    }

    private void Store(FrameConnection connection, HoleFiller filler, PageRange range, ReadOnlySpan<byte> content)
    {
        Diagnostics.FailurePoint.Reach("main.receiving");
        fixed (byte* bytes = content)
        {
            byte* from = bytes;
            while (range.Count > 0)
            {
                var block = ram.BlockOf(range.First);
                long count = Math.Min(range.Count, block.EndPage - range.First);
                nint bytesWritten = filler.Write(
                    block.File, from, count << PageIndex.PageShift, (range.First - block.FirstPage) << PageIndex.PageShift,
                    hole: table[range.First].State != PageState.Resident);
                if (bytesWritten != (nint)(count << PageIndex.PageShift))
                {
                    throw connection.Refuse(
                        $"the VM's memory on the main host could not be written ({Errno.Name((int)-bytesWritten)}). {Errno.Remedy((int)-bytesWritten)}");
                }

                packed.Remove(new PageRange(range.First, count));
                table.SetReceived(new PageRange(range.First, count));
                from += count << PageIndex.PageShift;
                range = new PageRange(range.First + count, range.Count - count);
            }
        }
    }

    private void Drop(PageRange range)
    {
        packed.Remove(range);
        Punch(range);
        table.SetUnused(range);
    }

    private void Punch(PageRange left)
    {
        while (left.Count > 0)
        {
            var block = ram.BlockOf(left.First);
            long count = Math.Min(left.Count, block.EndPage - left.First);
            int error = SparseFile.PunchHole(block.File, (left.First - block.FirstPage) << PageIndex.PageShift, count << PageIndex.PageShift);
            if (error != 0)
            {
                throw new KernelException("Dropping pages", error);
            }

            left = new PageRange(left.First + count, left.Count - count);
        }
    }
}

/// <summary>What the control messages of a migration make happen. Called by the control connection's thread.</summary>
internal interface IMigrationEvents
{
    /// <summary>Pages stay at the source, which listens there for the main host. Before the table is complete.</summary>
    void LeftAtSource(IPAddress address, int port);

    void TableComplete();

    /// <summary>Returns, after the last piece, when QEMU has loaded all of it.</summary>
    void DeviceState(ReadOnlySpan<byte> piece, bool last);

    /// <summary>Returns when the VM runs; called again when the source asks again.</summary>
    void Commit();

    void Abort(string reason);
}
