using System.Runtime.InteropServices;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using Microsoft.Win32.SafeHandles;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Of each store, the pages of which it may hold a copy that counts for nothing: an older one, or one of a page that is unused now. Noted
/// where a store could not be told (it was away), or was not asked to forget; taken back when it has confirmed that it forgot them. What is
/// noted is in a file in the worker's directory before the method returns, so that the worker that comes after a crash does not believe
/// such a copy: with this, it need not matter which of two stores was away when.
/// <para>
/// A page is not in the set of a store that the table names beside it. The owner of a Busy page notes it for a store that it takes from
/// the page; for a store that the page does not name, the holder of <see cref="PagingCore.EvictionGate"/> does. Safe from any thread.
/// </para>
/// </summary>
internal sealed class StaleCopies : IDisposable
{
    private const int BytesPerWord = 8;

    private readonly Lock _lock = new();
    private readonly long _pageCount;
    private readonly string? _directory;
    private readonly PageBitmap?[] _sets = new PageBitmap?[PageEntry.MaxSubs];
    private readonly SafeFileHandle?[] _files = new SafeFileHandle?[PageEntry.MaxSubs];
    private readonly long[] _counts = new long[PageEntry.MaxSubs];

    /// <param name="directory">Where the files are, on a tmpfs; null: nothing outlives this.</param>
    /// <exception cref="IOException">What a worker before has noted can't be read: then nothing may be believed.</exception>
    public StaleCopies(long pageCount, string? directory)
    {
        _pageCount = pageCount;
        _directory = directory;
        for (int store = 0; directory is not null && store < _sets.Length; store++)
        {
            if (File.Exists(PathOf(store)))
            {
                Open(store);
                _counts[store] = _sets[store]!.Count();
            }
        }
    }

    public long Count(int store) => Volatile.Read(ref _counts[store]);

    public bool Any(int store) => Count(store) > 0;

    public bool Has(int store, long page)
    {
        if (!Any(store))
        {
            return false;
        }

        lock (_lock)
        {
            return _sets[store]![page];
        }
    }

    /// <summary>Notes pages for a store. False: it can't be noted, and the caller must leave things as they are.</summary>
    public bool TryNote(int store, PageRange pages) => Change(store, pages, value: true);

    /// <summary>The store has forgotten them, or what it has of them is right.</summary>
    public bool TryClear(int store, PageRange pages) => !Any(store) || Change(store, pages, value: false);

    /// <summary>The next pages noted for a store.</summary>
    public bool Next(int store, long from, long most, out PageRange run)
    {
        lock (_lock)
        {
            if (_sets[store] is { } set)
            {
                return set.NextRun(from, most, out run);
            }
        }

        run = default;
        return false;
    }

    public void Dispose()
    {
        for (int i = 0; i < _sets.Length; i++)
        {
            _sets[i]?.Dispose();
            _files[i]?.Dispose();
        }
    }

    private bool Change(int store, PageRange pages, bool value)
    {
        lock (_lock)
        {
            try
            {
                Open(store);
                var set = _sets[store]!;
                for (long at = pages.First; at < pages.End;)
                {
                    long word = at >> 6;
                    long end = Math.Min(pages.End, (word + 1) << 6);
                    ulong bits = (ulong.MaxValue << (int)(at & 63)) & (ulong.MaxValue >> (int)(63 - ((end - 1) & 63)));
                    ulong old = set.Word(word);
                    ulong next = value ? old | bits : old & ~bits;
                    if (old != next)
                    {
                        if (_files[store] is { } file)
                        {
                            RandomAccess.Write(file, MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(in next)), word * BytesPerWord);
                        }

                        set.Words(word, 1)[0] = next;
                        Volatile.Write(
                            ref _counts[store],
                            _counts[store] + System.Numerics.BitOperations.PopCount(next) - System.Numerics.BitOperations.PopCount(old));
                    }

                    at = end;
                }

                return true;
            }
            catch (IOException)
            {
                return false;
            }
        }
    }

    private void Open(int store)
    {
        if (_sets[store] is not null)
        {
            return;
        }

        if (_directory is not null)
        {
            _files[store] = File.OpenHandle(PathOf(store), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read);
        }

        var set = new PageBitmap(_pageCount);
        byte[] piece = new byte[64 * 1024];
        for (long at = 0; _files[store] is { } file && RandomAccess.Read(file, piece, at) is var read and > 0; at += read)
        {
            for (int i = 0; i + BytesPerWord <= read && (at + i) / BytesPerWord < set.WordCount; i += BytesPerWord)
            {
                set.Words((at + i) / BytesPerWord, 1)[0] = BitConverter.ToUInt64(piece, i);
            }
        }

        _sets[store] = set;
    }

    private string PathOf(int store) => Path.Combine(_directory!, $"stale-copies-{store}");
}
