using System.Buffers.Binary;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Paging;

/// <summary>
/// The pages that are lost, in a file in the worker's directory before the guest learns of it: a worker that is started again finds such a
/// page nowhere, and would take it for an unused one, which is zeros. A page that was lost once stays so. Safe from any thread.
/// </summary>
internal sealed class LostPages : IDisposable
{
    private const string FileName = "lost-pages";

    private readonly Lock _lock = new();
    private readonly PageBitmap _noted;
    private readonly string? _directory;
    private SafeFileHandle? _file;
    private long _bytes;

    /// <param name="directory">Where the file is, on a tmpfs; null: nothing outlives this.</param>
    /// <exception cref="IOException">What a worker before has noted can't be read: then nothing may be taken for unused.</exception>
    public LostPages(long pageCount, string? directory)
    {
        _directory = directory;
        _noted = directory is null ? new(pageCount) : Read(directory, pageCount);
    }

    /// <summary>What workers before have noted.</summary>
    public static PageBitmap Read(string directory, long pageCount) => PageRunFile.Read(Path.Combine(directory, FileName), pageCount);

    /// <summary>From here on they are lost for every worker. False: it can't be noted, and nobody may be told that they are.</summary>
    public bool TryNote(PageRange pages)
    {
        lock (_lock)
        {
            for (long from = pages.First; from < pages.End;)
            {
                if (_noted[from])
                {
                    from++;
                    continue;
                }

                long end = from + 1;
                while (end < pages.End && !_noted[end])
                {
                    end++;
                }

                if (!TryAppend(new(from, end - from)))
                {
                    return false;
                }

                from = end;
            }

            return true;
        }
    }

    public void Dispose()
    {
        _file?.Dispose();
        _noted.Dispose();
    }

    private bool TryAppend(PageRange run)
    {
        try
        {
            if (_directory is not null)
            {
                if (_file is null)
                {
                    _file = File.OpenHandle(Path.Combine(_directory, FileName), FileMode.OpenOrCreate, FileAccess.Write, FileShare.Read);
                    // Behind the last whole run: what a crash or a full file system has cut off is written over.
                    _bytes = RandomAccess.GetLength(_file) / PageRunFile.RunBytes * PageRunFile.RunBytes;
                }

                Span<byte> bytes = stackalloc byte[PageRunFile.RunBytes];
                BinaryPrimitives.WriteInt64LittleEndian(bytes, run.First);
                BinaryPrimitives.WriteInt64LittleEndian(bytes[sizeof(long)..], run.Count);
                RandomAccess.Write(_file, bytes, _bytes);
                _bytes += bytes.Length;
            }

            _noted.Fill(run, true);
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }
}
