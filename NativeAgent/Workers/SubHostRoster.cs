using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>
/// Which of a split VM's sub-hosts still serve. What has been decided lies as a marker in the worker's directory before it is acted on, so
/// that a worker that is started again asks nobody for pages who has none, and takes no lost page for an unused one. A sub-host keeps
/// its index for ever: the page table has it beside each page.
/// </summary>
internal sealed class SubHostRoster(WorkerSpec spec, WorkerDirectory directory, Peer[] subs, WorkerCertificate certificate, long pages)
{
    private const string LostPagesFile = "lost-pages";

    /// <summary>Sub-hosts that have left or are lost.</summary>
    public int[] Gone => [.. Indices().Where(i => directory.Has(Marker(i, "left")) || directory.Has(Marker(i, "lost")))];

    /// <summary>Pages that a worker before has found to be lost.</summary>
    public PageBitmap ReadLost() => PageRunFile.Read(directory.File(LostPagesFile), pages);

    /// <summary>serving, leaving, left or lost.</summary>
    public string StateOf(int sub) =>
        directory.Has(Marker(sub, "lost")) ? "lost"
        : directory.Has(Marker(sub, "left")) ? "left"
        : directory.Has(Marker(sub, "leaving")) ? "leaving" : "serving";

    /// <summary>Goes on with what the worker before had begun.</summary>
    public void Continue(Pager pager)
    {
        foreach (int sub in Indices().Where(i => StateOf(i) == "leaving"))
        {
            pager.Evacuate(sub);
        }
    }

    /// <summary>A sub-host is to leave.</summary>
    /// <param name="lost">It is gone for good.</param>
    /// <exception cref="InvalidOperationException">There is none of this name that serves, or no room for its pages.</exception>
    public void Remove(Pager pager, string host, bool lost)
    {
        int sub = Array.FindIndex(subs, s => string.Equals(s.Host, host, StringComparison.OrdinalIgnoreCase));
        if (sub < 0 || StateOf(sub) is "left" or "lost")
        {
            throw new InvalidOperationException($"The VM has no sub-host '{host}' (any more).");
        }

        if (lost)
        {
            using var pagesLost = pager.GiveUp(sub);
            // Before the marker: with it, nobody asks for them any more, and without this file they would be taken for unused.
            PageRunFile.Write(directory.File(LostPagesFile), pagesLost);
            directory.Mark(Marker(sub, "lost"));
            return;
        }

        var figures = pager.Snapshot();
        long room = Indices().Where(i => i != sub).Sum(pager.RoomAt) + Math.Max(0, figures.LimitPages - figures.ResidentPages);
        if (room < pager.CopiesAt(sub))
        {
            throw new InvalidOperationException(
                $"The other hosts have room for {room >> 8} MiB of the VM, and {host} has {pager.CopiesAt(sub) >> 8} MiB of it. Give the main host more (Set-VmRemotePaging -MainMemory), or free memory in the guest.");
        }

        directory.Mark(Marker(sub, "leaving"));
        pager.Evacuate(sub);
    }

    /// <summary>Lets those go that have been emptied. Called again and again.</summary>
    public void Dismiss(Pager pager, IReadOnlyList<RemoteStore> stores)
    {
        for (int sub = 0; sub < subs.Length; sub++)
        {
            if (pager.FateOf(sub) != StoreFate.Leaves || pager.CopiesAt(sub) > 0)
            {
                continue;
            }

            directory.Mark(Marker(sub, "left"));
            pager.Forget(sub);
            stores[sub].Dispose();
            var peer = subs[sub];
            // If it can't be told now, it is told again when the VM ends.
            _ = Task.Run(() => EndOfSplit.TryTell(spec, peer, certificate, pages, "the sub-host was removed from the split VM"));
        }
    }

    private static string Marker(int sub, string what) => $"sub-{sub}-{what}";

    private IEnumerable<int> Indices() => Enumerable.Range(0, subs.Length);
}
