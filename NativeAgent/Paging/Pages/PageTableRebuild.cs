using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Storage;

namespace FCtrans.Agent.Paging;

/// <summary>
/// What a restarted worker knows: nothing, and it needs nothing. Pages with data in the RAM file are resident, others that lie packed beside it are so;
/// pages that a store lists are remote, or, where the RAM file has them too, an old copy; all others are unused. Right because a page leaves the RAM file only
/// after its copy was acknowledged, and becomes unused only after its old copy's end was.
/// </summary>
internal static class PageTableRebuild
{
    /// <summary>Fills a new table. Blocks until every store has answered: a page of a store that is away may not be taken for unused.</summary>
    /// <param name="packed">What lies beside the RAM files; null: nothing.</param>
    /// <param name="stores">Started.</param>
    /// <returns>Pages that two stores claim and the RAM file has not: now lost, rather than perhaps wrong.</returns>
    /// <exception cref="OperationCanceledException"><paramref name="cancellation"/> came first.</exception>
    /// <param name="pairs">Pages may have been at two stores: two that list a page both have its content.</param>
    /// <param name="stale">What a store lists and does not count.</param>
    /// <param name="gone">Of these, those that are not asked: they are not there any more.</param>
    public static long Fill(
        PageTable table, GuestRam ram, PackedPages? packed, IReadOnlyList<RemoteStore> stores, IReadOnlyCollection<int> gone, bool pairs, StaleCopies stale,
        CancellationToken cancellation)
    {
        foreach (var block in ram.Blocks)
        {
            long bytes = block.PageCount << PageIndex.PageShift;
            for (long at = 0; at < bytes && (at = SparseFile.NextData(block.File, at)) >= 0;)
            {
                long end = Math.Min(bytes, SparseFile.NextHole(block.File, at));
                table.SetReceived(new(
                    block.FirstPage + (at >> PageIndex.PageShift), (end - at + PageIndex.PageSize - 1) >> PageIndex.PageShift));
                at = end;
            }
        }

        ClaimPacked(table, packed);
        long conflicts = 0;
        foreach (var store in stores.Where(s => !gone.Contains(s.Index)).OrderBy(s => s.Options.IsSource))
        {
            var passed = new List<PageRange>();
            store.Bulk.List(range => conflicts += ClaimBelieved(table, range, store, pairs, stale, passed), cancellation);
            store.Bulk.Forget(passed, cancellation);
        }

        return conflicts;
    }

    /// <summary>Lifts all protection that the earlier worker had set, and lets every waiting thread fault again.</summary>
    /// <exception cref="KernelException">The VM's process is gone.</exception>
    public static void Release(GuestRam ram, UserfaultfdSet uffds)
    {
        foreach (var block in ram.Blocks)
        {
            for (long page = block.FirstPage; page < block.EndPage;)
            {
                var part = uffds.First(new(page, block.EndPage - page), out var uffd);
                var address = ram.AddressOf(page);
                int errno;
                while ((errno = uffd.WriteProtect(address, (ulong)part.Bytes, protect: false, wake: true)) == Errno.EAGAIN)
                {
                    Thread.Yield();
                }

                if (errno != 0)
                {
                    throw new KernelException("take over the VM's memory from the worker before", errno);
                }

                // Lifting wakes whom it finds protected; those who miss a page wait apart from them.
                uffd.Wake(address, (ulong)part.Bytes);
                page = part.End;
            }
        }
    }

    /// <summary>Where the RAM file has a page too, it was unpacked: the worker was killed before it had forgotten the other.</summary>
    private static void ClaimPacked(PageTable table, PackedPages? packed)
    {
        for (long from = 0; packed is not null && packed.NextRun(from, out var run); from = run.End)
        {
            for (long page = run.First; page < run.End; page++)
            {
                if (table[page].State == PageState.Resident)
                {
                    packed.Remove(new(page, 1));
                }
                else
                {
                    table.SetPacked(new(page, 1));
                }
            }
        }
    }

    private static long ClaimBelieved(
        PageTable table, PageRange range, RemoteStore store, bool pairs, StaleCopies stale, List<PageRange> passed)
    {
        long conflicts = 0;
        for (long page = range.First; page < range.End;)
        {
            if (!stale.Next(store.Index, page, long.MaxValue, out var doubted) || doubted.First >= range.End)
            {
                doubted = new(range.End, 0);
            }

            if (doubted.First > page)
            {
                conflicts += Claim(table, new(page, doubted.First - page), store, pairs, stale, passed);
            }

            page = Math.Max(doubted.End, page + 1);
        }

        return conflicts;
    }

    /// <summary>A second store has these pages too. Where two are named already, what one more has would not be known of: it counts for nothing.</summary>
    private static void Join(PageTable table, PageRange run, PageEntry entry, int sub, StaleCopies stale)
    {
        int place = table.Places.IsPair(entry.Sub) ? -1 : table.Places.Pair(table, entry.Sub, sub);
        if (place >= 0)
        {
            table.Set(run, new(entry.State, place));
        }
        else if (!stale.TryNote(sub, run))
        {
            throw new IOException("Which copies of pages count can't be noted in the worker's directory. Make room on its file system.");
        }
    }

    /// <summary>
    /// A sub-host's copy goes before the source's: at the switch-over no sub-host had what was left at the source, and what it has taken
    /// from there counts once it has all of it. The source is to forget its own then, which is noted in <paramref name="passed"/>: what
    /// the guest does with the page from here on would not be known there.
    /// </summary>
    private static long Claim(
        PageTable table, PageRange range, RemoteStore store, bool pairs, StaleCopies stale, List<PageRange> passed)
    {
        int sub = store.Index;
        long conflicts = 0;
        for (long page = range.First; page < range.End;)
        {
            var entry = table[page];
            long end = page + 1;
            while (end < range.End && table[end] == entry)
            {
                end++;
            }

            var run = new PageRange(page, end - page);
            page = end;
            bool named = entry.Sub >= 0 && table.Places.Contains(entry.Sub, sub);
            if (pairs && entry.Sub >= 0 && !named && !store.Options.IsSource && entry.State is PageState.Remote or PageState.Resident)
            {
                Join(table, run, entry, sub, stale);
            }
            else if (entry.Sub >= 0 && !named && entry.State == PageState.Remote)
            {
                if (store.Options.IsSource)
                {
                    passed.Add(run);
                    continue;
                }

                table.Set(run, new(PageState.Lost, entry.Sub));
                conflicts += run.Count;
            }
            else if (entry.State == PageState.Packed)
            {
                // Packed pages have no copies: it is to forget its own.
                passed.Add(run);
            }
            else if (entry.State == PageState.Unused)
            {
                table.SetRemote(run, sub);
            }
            else if (entry.State == PageState.Resident && entry.Sub < 0)
            {
                table.Set(run, new(PageState.Resident, sub));
            }
        }

        return conflicts;
    }
}
