using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Paging;

/// <summary>
/// The pages whose content may be at a store and nowhere else, one bit each, in a file that outlives the process. A worker that is started again needs
/// it only where it will never hear what a store had: then a page of these that nobody else has is lost, and every other is known to be unused.
/// <para>
/// Never too few: a page is in it before any store is sent its content (it begins to leave), and stays in it, also while it is here, until its content is
/// dead: every copy has been discarded, and its owner is about to mark it unused. The file has all its memory from the beginning, so that a write through
/// the mapping can't fail. Safe from any thread, since bits change by interlocked operations.
/// </para>
/// </summary>
internal sealed unsafe class AwayPages : IDisposable
{
    public const string FileName = "away-pages";

    private readonly MappedMemory _memory;

    private AwayPages(MappedMemory memory) => _memory = memory;

    /// <summary>Makes the file anew: what the table has for remote, or for lost.</summary>
    /// <exception cref="KernelException">Its file system has no room.</exception>
    /// <exception cref="IOException">Likewise.</exception>
    public static AwayPages Create(string directory, PageTable table)
    {
        string path = Path.Combine(directory, FileName);
        string temporary = path + ".tmp";
        AwayPages pages;
        using (var file = File.OpenHandle(temporary, FileMode.Create, FileAccess.ReadWrite))
        {
            SparseFile.Allocate(file, Bytes(table.PageCount));
            pages = new(MappedMemory.File(file, 0, (nuint)Bytes(table.PageCount), write: true));
        }

        for (long page = 0; (page = table.NextWithContent(page)) >= 0; page++)
        {
            if (table[page].State is PageState.Remote or PageState.Lost)
            {
                pages.Add(page);
            }
        }

        File.Move(temporary, path, overwrite: true);
        return pages;
    }

    /// <summary>The file of the worker before; null where it left none.</summary>
    public static AwayPages? TryOpen(string directory, long pageCount)
    {
        if (OpenFile(directory, pageCount) is not { } file)
        {
            return null;
        }

        using (file)
        {
            return new(MappedMemory.File(file, 0, (nuint)Bytes(pageCount), write: true));
        }
    }

    /// <summary>Adds to a set what the file has; all pages where there is none: then nothing is known of any.</summary>
    public static void AddTo(string directory, PageBitmap into)
    {
        using var pages = TryOpen(directory, into.PageCount);
        if (pages is null)
        {
            into.Fill(new(0, into.PageCount), true);
            return;
        }

        for (long word = 0; word < into.WordCount; word++)
        {
            into.Words(word, 1)[0] |= Volatile.Read(ref *pages.Word(word << 6));
        }
    }

    public void Add(long page)
    {
        ulong bit = 1UL << (int)(page & 63);
        if ((Volatile.Read(ref *Word(page)) & bit) == 0)
        {
            Interlocked.Or(ref *Word(page), bit);
        }
    }

    public void Remove(long page)
    {
        ulong bit = 1UL << (int)(page & 63);
        if ((Volatile.Read(ref *Word(page)) & bit) != 0)
        {
            Interlocked.And(ref *Word(page), ~bit);
        }
    }

    /// <summary>Nobody may move pages of the table any more.</summary>
    public void Dispose() => _memory.Dispose();

    private static SafeFileHandle? OpenFile(string directory, long pageCount)
    {
        string path = Path.Combine(directory, FileName);
        if (!File.Exists(path))
        {
            return null;
        }

        var file = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        if (RandomAccess.GetLength(file) == Bytes(pageCount))
        {
            return file;
        }

        file.Dispose();
        return null;
    }

    /// <summary>Whole pages of memory, which are whole words too.</summary>
    private static long Bytes(long pageCount) => ((pageCount + 7) / 8 + PageIndex.PageSize - 1) / PageIndex.PageSize * PageIndex.PageSize;

    // The table, whose pages these are, has checked that the page is one.
    private ulong* Word(long page) => (ulong*)_memory.Address + (page >> 6);
}
