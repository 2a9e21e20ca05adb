using FCtrans.Agent.Memory;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Storage;

/// <summary>The pages of a RowPages frame, in runs of those that <see cref="PackedPages"/> has room for and of those that it has not.</summary>
internal ref struct RowRuns
{
    private PageRange _left;
    private ReadOnlySpan<byte> _rows;

    /// <param name="range">Of the frame.</param>
    /// <param name="rows">Its payload; the peer may have sent anything.</param>
    /// <exception cref="ProtocolException">It is not exactly these pages.</exception>
    public RowRuns(PageRange range, ReadOnlySpan<byte> rows)
    {
        _left = range;
        _rows = rows;
        for (long page = range.First; page < range.End; page++)
        {
            if (!RowCodec.TryMeasure(rows, out int length))
            {
                throw RowCodec.Damaged();
            }

            rows = rows[length..];
        }

        if (rows.Length > 0)
        {
            throw RowCodec.Damaged();
        }
    }

    /// <summary>False at the end.</summary>
    /// <param name="run">The next pages.</param>
    /// <param name="rows">Their encodings.</param>
    /// <param name="fit">Whether each has room in a slot; if not, none has.</param>
    public bool Next(out PageRange run, out ReadOnlySpan<byte> rows, out bool fit)
    {
        run = default;
        rows = default;
        fit = false;
        if (_left.Count == 0)
        {
            return false;
        }

        fit = RowCodec.LengthOf(_rows) <= PackedPages.SlotBytes;
        int count = 0;
        int bytes = 0;
        while (count < _left.Count && RowCodec.LengthOf(_rows[bytes..]) is var length && length <= PackedPages.SlotBytes == fit)
        {
            bytes += length;
            count++;
        }

        run = new(_left.First, count);
        rows = _rows[..bytes];
        _left = new(run.End, _left.Count - count);
        _rows = _rows[bytes..];
        return true;
    }
}
