using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Transport;

/// <summary>
/// Pages that are a table whose rows of 64 bytes go on by a constant step, each 8-byte word by its own: one word over and over, and above all
/// the guest kernel's <c>struct page</c>s of memory that nobody has used, which hold their own addresses. An idle guest of 352 GiB has 5.5 GiB
/// of these and hardly anything else; 95 in 100 of them become 129 bytes, and the others hardly more.
/// <para>
/// A page: the number of rows that are not as predicted, the first row as predicted, the step, and then each row that is not, with its number,
/// ascending. Finding out that a page is none of these takes some nanoseconds. Neither way allocates.
/// </para>
/// </summary>
internal static class RowCodec
{
    /// <summary>Pages in one frame at most.</summary>
    public const int MaxPages = 64;

    /// <summary>Of one page.</summary>
    public const int MaxEncodedBytes = MinEncodedBytes + (MaxExceptions * ExceptionBytes);

    /// <summary>Of one page.</summary>
    public const int MinEncodedBytes = 1 + (2 * RowBytes);

    private const int RowBytes = 64;
    private const int Rows = PageIndex.PageSize / RowBytes;
    private const int MaxExceptions = 8;
    private const int ExceptionBytes = 1 + RowBytes;

    /// <summary>Rows from which the step is taken: a page of <c>struct page</c>s may begin with one that differs.</summary>
    private static ReadOnlySpan<byte> Anchors => [1, 33];

    /// <summary>Encodes one page if that makes it small.</summary>
    /// <param name="page">4096 bytes.</param>
    /// <param name="target">At least <see cref="MaxEncodedBytes"/> long.</param>
    /// <param name="length">Of the result; <see cref="MinEncodedBytes"/> to <see cref="MaxEncodedBytes"/>.</param>
    public static bool TryEncode(ReadOnlySpan<byte> page, Span<byte> target, out int length)
    {
        length = 0;
        return TryFindStep(page, out var first, out var step) && TryEncode(page, first, step, target, out length);
    }

    /// <summary>Encodes as many pages, from the first on, as that makes small; returns how many.</summary>
    /// <param name="pages">Whole pages; not more than <see cref="MaxPages"/> are looked at.</param>
    /// <param name="target">Room for them.</param>
    /// <param name="length">Of the result.</param>
    public static int EncodeRun(ReadOnlySpan<byte> pages, Span<byte> target, out int length)
    {
        length = 0;
        int count = 0;
        while (count < MaxPages && pages.Length > 0 && TryEncode(pages[..PageIndex.PageSize], target[length..], out int bytes))
        {
            length += bytes;
            pages = pages[PageIndex.PageSize..];
            count++;
        }

        return count;
    }

    /// <summary>Whether it is worth trying; false is certain.</summary>
    /// <param name="page">4096 bytes.</param>
    public static bool IsLikely(ReadOnlySpan<byte> page) => TryFindStep(page, out _, out _);

    /// <summary>How long the first page's encoding is; only after <see cref="TryMeasure"/> has found it to be one.</summary>
    public static int LengthOf(ReadOnlySpan<byte> rows) => MinEncodedBytes + (rows[0] * ExceptionBytes);

    /// <summary>How long the first page's encoding is. False where there is none: the peer may have sent anything.</summary>
    /// <param name="rows">Of a RowPages frame; may go on with other pages.</param>
    /// <param name="length">Of the encoding.</param>
    public static bool TryMeasure(ReadOnlySpan<byte> rows, out int length)
    {
        length = 0;
        if (rows.Length < MinEncodedBytes || rows[0] > MaxExceptions || rows.Length < LengthOf(rows))
        {
            return false;
        }

        int before = -1;
        for (int at = MinEncodedBytes; at < LengthOf(rows); at += ExceptionBytes)
        {
            if (rows[at] <= before || rows[at] >= Rows)
            {
                return false;
            }

            before = rows[at];
        }

        length = LengthOf(rows);
        return true;
    }

    /// <summary>Takes a frame's payload apart; the peer may have sent anything.</summary>
    /// <param name="payload">Of a RowPages frame.</param>
    /// <param name="pages">As long as the frame's pages.</param>
    /// <exception cref="ProtocolException">It is not exactly these pages.</exception>
    public static void Decode(ReadOnlySpan<byte> payload, Span<byte> pages)
    {
        for (; pages.Length > 0; pages = pages[PageIndex.PageSize..])
        {
            if (!TryMeasure(payload, out int length))
            {
                throw Damaged();
            }

            var row = Row.Load(payload[1..], 0);
            var step = Row.Load(payload[1..], 1);
            for (int r = 0; r < Rows; r++)
            {
                row.Store(pages, r);
                row = row + step;
            }

            for (int at = MinEncodedBytes; at < length; at += ExceptionBytes)
            {
                Row.Load(payload[(at + 1)..], 0).Store(pages, payload[at]);
            }

            payload = payload[length..];
        }

        if (payload.Length > 0)
        {
            throw Damaged();
        }
    }

    public static ProtocolException Damaged() => new("A frame's pages of rows are damaged.");

    private static bool TryFindStep(ReadOnlySpan<byte> page, out Row first, out Row step)
    {
        foreach (byte anchor in Anchors)
        {
            var at = Row.Load(page, anchor);
            step = Row.Load(page, anchor + 1) - at;
            if (Row.Load(page, anchor + 2).Is(at + step + step))
            {
                first = at - (step * anchor);
                return true;
            }
        }

        first = step = default;
        return false;
    }

    private static bool TryEncode(ReadOnlySpan<byte> page, in Row first, in Row step, Span<byte> target, out int length)
    {
        int exceptions = 0;
        length = MinEncodedBytes;
        var predicted = first;
        for (int r = 0; r < Rows; r++, predicted = predicted + step)
        {
            var row = Row.Load(page, r);
            if (row.Is(predicted))
            {
                continue;
            }

            if (++exceptions > MaxExceptions)
            {
                return false;
            }

            target[length] = (byte)r;
            row.Store(target[(length + 1)..], 0);
            length += ExceptionBytes;
        }

        target[0] = (byte)exceptions;
        first.Store(target[1..], 0);
        step.Store(target[1..], 1);
        return true;
    }

    /// <summary>Eight words of 8 bytes, each reckoned for itself and modulo 2^64. Of halves that every x86-64 processor has instructions for.</summary>
    private readonly struct Row(Vector128<ulong> a, Vector128<ulong> b, Vector128<ulong> c, Vector128<ulong> d)
    {
        private const int Part = RowBytes / 4;

        private readonly Vector128<ulong> _a = a;
        private readonly Vector128<ulong> _b = b;
        private readonly Vector128<ulong> _c = c;
        private readonly Vector128<ulong> _d = d;

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Row operator +(in Row left, in Row right) =>
            new(left._a + right._a, left._b + right._b, left._c + right._c, left._d + right._d);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Row operator -(in Row left, in Row right) =>
            new(left._a - right._a, left._b - right._b, left._c - right._c, left._d - right._d);

        public static Row operator *(in Row row, ulong times) => new(row._a * times, row._b * times, row._c * times, row._d * times);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public bool Is(in Row other) =>
            ((_a ^ other._a) | (_b ^ other._b) | (_c ^ other._c) | (_d ^ other._d)) == Vector128<ulong>.Zero;

        /// <param name="index">In rows.</param>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Row Load(ReadOnlySpan<byte> from, int index)
        {
            ref byte at = ref MemoryMarshal.GetReference(from.Slice(index * RowBytes, RowBytes));
            return new(
                Vector128.LoadUnsafe(ref at).AsUInt64(), Vector128.LoadUnsafe(ref at, Part).AsUInt64(),
                Vector128.LoadUnsafe(ref at, 2 * Part).AsUInt64(), Vector128.LoadUnsafe(ref at, 3 * Part).AsUInt64());
        }

        /// <param name="index">In rows.</param>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public void Store(Span<byte> to, int index)
        {
            ref byte at = ref MemoryMarshal.GetReference(to.Slice(index * RowBytes, RowBytes));
            _a.AsByte().StoreUnsafe(ref at);
            _b.AsByte().StoreUnsafe(ref at, Part);
            _c.AsByte().StoreUnsafe(ref at, 2 * Part);
            _d.AsByte().StoreUnsafe(ref at, 3 * Part);
        }
    }
}
