using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Empties a sub-host that leaves: fetches the pages that only it has, writable, has it forget its copies of pages that are here, and
/// leaves it to the evictor to send them to others. Each step is one that a page takes anyway (<see cref="PageTable"/>), so that a fault, a
/// crash or a cut in the middle of it is nothing new. For a sub-host that is gone only its name is to be taken from pages that are here.
/// <para>The evictor's thread only.</para>
/// </summary>
internal sealed class Evacuation(PagingCore core, EvictionBatch batch)
{
    private long _hand;

    /// <summary>Does a part of it. Whether anything could be done.</summary>
    public bool Run()
    {
        bool progress = false;
        for (int sub = 0; sub < core.Stores.Length; sub++)
        {
            bool gone = core.FateOf(sub) == StoreFate.Gone;
            if (gone ? core.Table.CopiesAt(sub) > 0 : core.FateOf(sub) == StoreFate.Leaves && core.Copies.CopiesAt(sub) > 0)
            {
                progress |= Empty(sub, gone);
            }
        }

        return progress;
    }

    private bool Empty(int sub, bool gone)
    {
        var store = core.Stores[sub];
        bool any = false;
        int oldCopies = 0;
        for (long left = core.Table.PageCount; left > 0 && oldCopies < EvictionBatch.MaxPages; left--)
        {
            long page = _hand;
            _hand = page + 1 == core.Table.PageCount ? 0 : page + 1;
            var entry = core.Table[page];
            if (!core.Table.Places.Contains(entry.Sub, sub) || (gone && core.Table.Places.IsPair(entry.Sub)))
            {
                continue;
            }

            switch (entry.State)
            {
                case PageState.Remote or PageState.Resident
                    when !gone && core.Table.Places.Other(entry.Sub, sub) is >= 0 and var other && core.Copies.IsUsable(other):
                    // The other has it too. A copy to make up for this one is made in the background.
                    any |= core.Copies.TryRehome(page, ref entry, other);
                    break;

                case PageState.Resident when !gone && core.Table.Places.IsPair(entry.Sub):
                    // Its content is here, and nobody who is to stay has it.
                    any |= core.Copies.TryRehome(page, ref entry, -1);
                    break;

                case PageState.Remote when !gone && core.Copies.StoreToAsk(page, entry.Sub) != sub:
                    // Its other sub-host is away, or about to leave as well: one of them has to be waited for.
                    break;

                case PageState.Remote when !gone:
                    any |= TryFetch(page, sub);
                    break;

                case PageState.ResidentClean:
                    // It would be dropped as the sub-host's; as a page of its own it is sent to another.
                    any |= core.TryMakeWritable(page, entry);
                    break;

                case PageState.Resident when gone:
                    any |= core.Table.TryMove(page, entry, new(PageState.Resident));
                    break;

                case PageState.Resident when batch.CanDiscard(entry):
                    batch.AddOldCopy(page, entry);
                    oldCopies++;
                    break;
            }
        }

        if (!gone)
        {
            store.Evacuation.Flush();
        }

        if (oldCopies > 0)
        {
            lock (core.BulkGate)
            {
                any |= batch.DiscardOldCopies();
            }
        }

        return any;
    }

    /// <summary>Fetches the page and those right after it, as many as one request takes.</summary>
    private bool TryFetch(long page, int sub)
    {
        var store = core.Stores[sub];
        if (!store.Evacuation.IsReady || core.Table.LocalPages + PrefetchChannel.MaxPages > core.LimitPages)
        {
            return false;
        }

        var remote = core.Table[page];
        if (remote.State != PageState.Remote || !core.Table.Places.Contains(remote.Sub, sub))
        {
            return false;
        }

        int count = 0;
        while (count < PrefetchChannel.MaxPages && page + count < core.Table.PageCount && core.Table[page + count] == remote
            && core.Table.TryMove(page + count, remote, remote.With(PageState.Fetching)))
        {
            count++;
        }

        if (count > 0)
        {
            store.Evacuation.Get(new PageRange(page, count), forWrite: true);
        }

        return count > 0;
    }
}
