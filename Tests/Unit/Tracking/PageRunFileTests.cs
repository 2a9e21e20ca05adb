using System.Buffers.Binary;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Tracking;

/// <summary>Sets of pages that a worker leaves to the next one.</summary>
public sealed class PageRunFileTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("fctrans-runs-").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    private string Path => System.IO.Path.Combine(_directory, "pages");

    [Fact]
    public void A_set_is_read_as_it_was_written_also_over_one_from_before()
    {
        foreach (long[] set in (long[][])[[0, 1, 63, 64, 999], [], [500, 501, 502]])
        {
            using var pages = new PageBitmap(1000);
            Array.ForEach(set, page => pages[page] = true);
            PageRunFile.Write(Path, pages);
            Assert.Equal(set, Read());
        }

        Assert.Equal([Path], Directory.GetFiles(_directory));
    }

    [Fact]
    public void A_set_that_can_not_be_written_leaves_the_one_from_before()
    {
        using var pages = new PageBitmap(1000);
        pages[7] = true;
        PageRunFile.Write(Path, pages);
        // Something is in the way.
        Directory.CreateDirectory(Path + ".tmp");
        pages[8] = true;
        Assert.ThrowsAny<Exception>(() => PageRunFile.Write(Path, pages));
        Assert.Equal([7L], Read());
    }

    [Fact]
    public void Runs_of_pages_that_the_VM_does_not_have_and_what_was_cut_off_count_as_nothing()
    {
        (long First, long Count)[] runs =
            [(5, 2), (-1, 3), (1000, 1), (990, 11), (long.MaxValue, 1), (0, long.MaxValue), (10, 0), (20, -5), (long.MinValue, long.MinValue), (998, 2)];
        byte[] bytes = new byte[(runs.Length * 16) + 15];
        for (int i = 0; i < runs.Length; i++)
        {
            BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan(i * 16), runs[i].First);
            BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan((i * 16) + 8), runs[i].Count);
        }

        File.WriteAllBytes(Path, bytes);
        Assert.Equal([5L, 6, 998, 999], Read());
        File.Delete(Path);
        Assert.Empty(Read());
    }

    private long[] Read()
    {
        using var pages = PageRunFile.Read(Path, 1000);
        return [.. Enumerable.Range(0, 1000).Select(page => (long)page).Where(page => pages[page])];
    }
}
