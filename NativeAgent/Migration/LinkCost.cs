using System.Diagnostics;

namespace FCtrans.Agent.Migration;

/// <summary>
/// Says whether compressing pays, from what this very link and this very core have just shown: a byte is compressed when that takes
/// less time than sending what it saves. Sending counts with all that makes a sender wait: encryption, a slow link, a busy receiver.
/// <para>
/// What is not done is not measured, so one block in <see cref="ProbeEvery"/> is done the other way. One thread's.
/// </para>
/// </summary>
internal sealed class LinkCost
{
    /// <summary>Blocks (64 KiB) from one look at the way not taken to the next.</summary>
    private const int ProbeEvery = 32;

    // More than the connection's own buffer, so that what waits there counts.
    private const long BytesPerLook = 512 << 10;

    // Half the weight of a measurement is gone after about ten more.
    private const double Fresh = 1.0 / 16;

    private double _sendTicksPerByte;
    private double _compressTicksPerByte;
    private double _ratio = 0.5;
    private int _block;
    private long _bytes;
    private long _ticks;

    /// <summary>Whether to try to compress the next block.</summary>
    public bool ShouldCompress()
    {
        bool pays = _sendTicksPerByte == 0 || _compressTicksPerByte < (1 - _ratio) * _sendTicksPerByte;
        if (++_block % ProbeEvery != 0)
        {
            return pays;
        }

        return !pays;
    }

    /// <summary>A block was tried.</summary>
    /// <param name="bytes">Before.</param>
    /// <param name="result">After; as many as before where it did not become smaller.</param>
    /// <param name="startedAt"><see cref="Stopwatch"/> ticks.</param>
    public void Compressed(int bytes, int result, long startedAt)
    {
        Note(ref _compressTicksPerByte, (double)(Stopwatch.GetTimestamp() - startedAt) / bytes);
        _ratio += ((double)result / bytes - _ratio) * Fresh;
    }

    /// <summary>Bytes were given to the connection, which took its time over them now or will do so later.</summary>
    public void Sent(long bytes, long ticks)
    {
        _bytes += bytes;
        _ticks += ticks;
        if (_bytes >= BytesPerLook)
        {
            Note(ref _sendTicksPerByte, (double)_ticks / _bytes);
            _bytes = _ticks = 0;
        }
    }

    /// <summary>What was sent had to wait for something besides the connection.</summary>
    public void Waited(long ticks) => _ticks += ticks;

    private static void Note(ref double average, double value) =>
        average = average == 0 ? value : average + ((value - average) * Fresh);
}
