using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using Microsoft.Win32.SafeHandles;
using Xunit;

namespace FCtrans.Kernel.Tests.Interop;

/// <summary>Whatever way a page takes into its file, it is there as it was given, and every other page as it was.</summary>
public sealed unsafe class HoleFillerTests : IDisposable
{
    private const int Page = PageIndex.PageSize;
    private const int WindowPages = 2048;
    private const int FilePages = 3 * WindowPages;

    private readonly Lock _writing = new();
    private readonly string _path = $"/dev/shm/fctrans-filler-{Guid.NewGuid():N}";
    private readonly SafeFileHandle _file;

    public HoleFillerTests()
    {
        _file = File.OpenHandle(_path, FileMode.CreateNew, FileAccess.ReadWrite);
        SparseFile.SetLength(_file, (long)FilePages * Page);
    }

    public void Dispose()
    {
        _file.Dispose();
        File.Delete(_path);
    }

    [Fact]
    public void Holes_are_filled_by_the_short_way_across_windows_and_nothing_beside_them()
    {
        using var filler = new HoleFiller(_writing);
        Put(filler, WindowPages - 100, 200, generation: 1);
        Assert.Equal(200 * Page, filler.Filled);
        // Up to the file's last page: its window reaches beyond the end.
        Put(filler, FilePages - 64, 64, generation: 1);
        Assert.Equal(264 * Page, filler.Filled);
        Expect(WindowPages - 100, 200, generation: 1);
        Expect(FilePages - 64, 64, generation: 1);
        Assert.Equal(264 * Page, SparseFile.AllocatedBytes(_file));
    }

    [Fact]
    public void A_page_that_is_there_is_written_over_and_what_follows_it_too()
    {
        using var filler = new HoleFiller(_writing);
        Put(filler, 40, 1, generation: 1);
        Assert.Equal(0, filler.Filled);
        Put(filler, 10, 100, generation: 2);
        Assert.Equal(30 * Page, filler.Filled);
        Expect(10, 100, generation: 2);
        Put(filler, 0, 128, generation: 3);
        Expect(0, 128, generation: 3);
        Assert.Equal(128 * Page, SparseFile.AllocatedBytes(_file));
    }

    [Fact]
    public void Several_threads_fill_their_parts_of_one_file()
    {
        const int part = 32;
        var threads = new List<Thread>();
        var failures = new List<Exception>();
        for (int t = 0; t < 3; t++)
        {
            int first = t * part;
            threads.Add(new Thread(() =>
            {
                try
                {
                    using var filler = new HoleFiller(_writing);
                    for (int at = first; at < FilePages; at += 3 * part)
                    {
                        Put(filler, at, Math.Min(part, FilePages - at), generation: 5);
                    }
                }
                catch (Exception e)
                {
                    lock (failures)
                    {
                        failures.Add(e);
                    }
                }
            }));
        }

        threads.ForEach(static t => t.Start());
        threads.ForEach(static t => t.Join());
        Assert.Empty(failures);
        Expect(0, FilePages, generation: 5);
    }

    /// <summary>The guest of a RAM file may be paged next: no part of it may be mapped here then.</summary>
    [Fact]
    public void No_file_stays_mapped_when_the_work_is_over()
    {
        using var filler = new HoleFiller(_writing);
        Put(filler, 0, 64, generation: 1);
        Assert.True(IsMapped());
        filler.Release();
        Assert.False(IsMapped());
        Put(filler, 64, 64, generation: 1);
        Assert.Equal(128 * Page, filler.Filled);
        Expect(0, 128, generation: 1);
    }

    [Fact]
    public void Pages_known_to_be_there_are_written_over_without_a_window()
    {
        using var filler = new HoleFiller(_writing);
        Put(filler, 0, 128, generation: 1);
        filler.Release();
        long windows = filler.Windows;
        Put(filler, 0, 128, generation: 2, hole: false);
        Assert.Equal(windows, filler.Windows);
        Assert.False(IsMapped());
        Expect(0, 128, generation: 2);
    }

    /// <summary>What the guest frees meanwhile leaves the file beside what is filled, in the same window.</summary>
    [Fact]
    public void Pages_that_leave_the_file_beside_it_are_holes_and_those_that_come_are_whole()
    {
        const int part = 32;
        using (var filler = new HoleFiller(_writing))
        {
            for (int at = part; at < FilePages; at += 2 * part)
            {
                Put(filler, at, part, generation: 1);
            }
        }

        int errno = 0;
        var punching = new Thread(() =>
        {
            for (int at = part; at < FilePages && errno == 0; at += 2 * part)
            {
                errno = SparseFile.PunchHole(_file, (long)at * Page, part * Page);
            }
        });
        punching.Start();
        using (var filler = new HoleFiller(_writing))
        {
            for (int at = 0; at < FilePages; at += 2 * part)
            {
                Put(filler, at, part, generation: 2);
            }
        }

        punching.Join();
        Assert.Equal(0, errno);
        Assert.Equal((long)FilePages / 2 * Page, SparseFile.AllocatedBytes(_file));
        for (int at = 0; at < FilePages; at += 2 * part)
        {
            Expect(at, part, generation: 2);
        }
    }

    [Fact]
    public void A_file_that_has_no_short_way_is_written()
    {
        string path = Path.Combine(AppContext.BaseDirectory, $"filler-{Guid.NewGuid():N}");
        using var file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, options: FileOptions.DeleteOnClose);
        SparseFile.SetLength(file, 64L * Page);
        using var filler = new HoleFiller(_writing);
        byte[] content = Content(0, 64, generation: 7);
        fixed (byte* bytes = content)
        {
            Assert.Equal(64 * Page, filler.Write(file, bytes, 64 * Page, 0, hole: true));
        }

        // That says nothing of another file.
        Put(filler, 0, 64, generation: 7);
        Assert.Equal(64 * Page, filler.Filled);

        byte[] read = new byte[64 * Page];
        Assert.Equal(read.Length, RandomAccess.Read(file, read, 0));
        Assert.Equal(content, read);
    }

    [Fact]
    public void What_cannot_be_written_fails_as_write_does()
    {
        using var filler = new HoleFiller(_writing);
        using var readOnly = File.OpenHandle(_path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        byte[] content = Content(0, 32, generation: 1);
        fixed (byte* bytes = content)
        {
            Assert.Equal(-Errno.EBADF, filler.Write(readOnly, bytes, 32 * Page, 0, hole: true));
        }

        Assert.Equal(0, SparseFile.AllocatedBytes(_file));
    }

    private static byte[] Content(int first, int count, int generation)
    {
        byte[] content = new byte[count * Page];
        for (int i = 0; i < count; i++)
        {
            content.AsSpan(i * Page, Page).Fill((byte)(1 + (((first + i) * 31) + generation) % 255));
        }

        return content;
    }

    private bool IsMapped() => File.ReadLines("/proc/self/maps").Any(line => line.EndsWith(_path, StringComparison.Ordinal));

    private void Put(HoleFiller filler, int first, int count, int generation, bool hole = true)
    {
        fixed (byte* bytes = Content(first, count, generation))
        {
            Assert.Equal(count * Page, filler.Write(_file, bytes, (long)count * Page, (long)first * Page, hole));
        }
    }

    private void Expect(int first, int count, int generation)
    {
        byte[] read = new byte[count * Page];
        Assert.Equal(read.Length, RandomAccess.Read(_file, read, (long)first * Page));
        Assert.True(read.AsSpan().SequenceEqual(Content(first, count, generation)), $"pages {first} to {first + count - 1} are not as they were given");
    }
}
