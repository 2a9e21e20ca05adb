using System.Buffers.Binary;
using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Tracking;

/// <summary>A set of pages in a file: its runs, each as first page and count, 8 bytes little-endian each.</summary>
internal static class PageRunFile
{
    /// <summary>Of each run; what is left behind the last whole one counts as nothing.</summary>
    public const int RunBytes = 16;

    public static void Write(string path, PageBitmap pages)
    {
        string temporary = path + ".tmp";
        using (var file = File.Create(temporary))
        {
            Span<byte> bytes = stackalloc byte[RunBytes];
            for (long from = 0; pages.NextRun(from, long.MaxValue, out var run); from = run.End)
            {
                BinaryPrimitives.WriteInt64LittleEndian(bytes, run.First);
                BinaryPrimitives.WriteInt64LittleEndian(bytes[8..], run.Count);
                file.Write(bytes);
            }
        }

        File.Move(temporary, path, overwrite: true);
    }

    /// <summary>The set in the file; runs that the VM does not have, and a missing file, count as nothing: the set is a hint.</summary>
    public static PageBitmap Read(string path, long pageCount)
    {
        var pages = new PageBitmap(pageCount);
        if (!File.Exists(path))
        {
            return pages;
        }

        var bytes = File.ReadAllBytes(path).AsSpan();
        for (; bytes.Length >= RunBytes; bytes = bytes[RunBytes..])
        {
            var run = new PageRange(BinaryPrimitives.ReadInt64LittleEndian(bytes), BinaryPrimitives.ReadInt64LittleEndian(bytes[8..]));
            if (run.First >= 0 && run.Count > 0 && run.First < pageCount && run.Count <= pageCount - run.First)
            {
                pages.Fill(run, true);
            }
        }

        return pages;
    }
}
