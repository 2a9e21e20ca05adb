using System.Net;
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
internal sealed class SubHostRoster(WorkerSpec spec, WorkerDirectory directory, WorkerCertificate certificate, long pages)
{
    private volatile Peer[] _subs = [.. spec.Peers.Where(peer => peer.Role == WorkerRole.Sub).OrderBy(peer => peer.SubIndex)];

    /// <summary>Its pages are lost, and not all of them are noted yet.</summary>
    private const string Unheard = "unheard";

    /// <summary>All that the VM has or had, by their indices.</summary>
    public Peer[] Subs => _subs;

    /// <summary>Sub-hosts that have left or are lost.</summary>
    public int[] Gone => [.. Indices().Where(i => StateOf(i) is "left" or "lost")];

    /// <summary>Some were given up of which nobody has heard what they had: see <see cref="GiveUpUnheard"/>.</summary>
    public bool AnyUnheard => Indices().Any(i => directory.Has(Marker(i, Unheard)));

    /// <summary>Pages that a worker before has found to be lost.</summary>
    public PageBitmap ReadLost() => LostPages.Read(directory.Path, pages);

    /// <summary>serving, leaving, left or lost.</summary>
    public string StateOf(int sub) =>
        directory.Has(Marker(sub, "lost")) || directory.Has(Marker(sub, Unheard)) ? "lost"
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

    /// <summary>Who a sub-host that is to come would be, if it may.</summary>
    /// <param name="pairs">Pages are, or were, to be at two sub-hosts each.</param>
    /// <exception cref="InvalidOperationException">It may not: says why.</exception>
    public Peer Admit(AddSubHostRequest request, bool pairs)
    {
        if (request.Host.Length is 0 or > 255 || request.Port is 0 or > 65535 || !IPAddress.TryParse(request.Address, out _)
            || (spec.Tls && (request.Thumbprint.Length != 64 || !request.Thumbprint.All(char.IsAsciiHexDigit))))
        {
            throw new InvalidOperationException("It is not said where the sub-host's worker is and how it is known.");
        }

        if (Find(request.Host) >= 0)
        {
            throw new InvalidOperationException($"The VM has a sub-host '{request.Host}' already.");
        }

        int most = pairs ? Places.MaxPaired : PageEntry.MaxSubs;
        if (_subs.Length >= most)
        {
            throw new InvalidOperationException($"The VM has had {most} sub-hosts; it can have no more.");
        }

        return new Peer
        {
            Role = WorkerRole.Sub,
            Host = request.Host,
            Address = request.Address,
            Port = request.Port,
            Thumbprint = request.Thumbprint,
            SubIndex = (uint)_subs.Length,
            FreeBytes = request.FreeBytes,
        };
    }

    /// <summary>Whether the VM can keep two copies of each page.</summary>
    /// <exception cref="InvalidOperationException">It can't: says why.</exception>
    public void CheckCopies()
    {
        if (_subs.Length > Places.MaxPaired)
        {
            throw new InvalidOperationException($"A VM that has had more than {Places.MaxPaired} sub-hosts can't keep two copies of each page.");
        }

        if (Indices().Count(sub => StateOf(sub) == "serving") < 2)
        {
            throw new InvalidOperationException("Two copies need two sub-hosts. Add-VmSubHost adds one.");
        }
    }

    /// <summary>From here on a worker that is started again has this sub-host too.</summary>
    public void Note(Peer sub)
    {
        var grown = directory.ReadSpec() ?? throw new InvalidOperationException("The worker's directory is gone.");
        grown.Peers.Add(sub);
        directory.WriteSpec(grown);
        _subs = [.. _subs, sub];
    }

    /// <summary>A sub-host is to leave.</summary>
    /// <param name="lost">It is gone for good.</param>
    /// <exception cref="InvalidOperationException">There is none of this name that serves, or no room for its pages.</exception>
    public void Remove(Pager pager, string host, bool lost)
    {
        int sub = Find(host);
        if (sub < 0)
        {
            throw new InvalidOperationException($"The VM has no sub-host '{host}' (any more).");
        }

        if (lost)
        {
            // Before the marker, since this notes what is lost: with the marker, nobody asks for these pages any more.
            pager.GiveUp(sub).Dispose();
            directory.Mark(Marker(sub, "lost"));
            return;
        }

        var figures = pager.Snapshot();
        long room = Indices().Where(i => i != sub).Sum(pager.RoomAt) + Math.Max(0, figures.LimitPages - figures.ResidentPages);
        if (room < pager.AloneAt(sub))
        {
            throw new InvalidOperationException(
                $"The other hosts have room for {room >> 8} MiB of the VM, and {host} alone has {pager.AloneAt(sub) >> 8} MiB of it. Give the main host more (Set-VmRemotePaging -MainMemory), or free memory in the guest.");
        }

        directory.Mark(Marker(sub, "leaving"));
        pager.Evacuate(sub);
    }

    /// <summary>
    /// A sub-host is gone for good, and a worker that was started again has not heard what it had, and never will: its pages are those that may have been
    /// away and that nobody else has. Until they are told apart (<see cref="Settle"/>), only that it was given up is noted.
    /// </summary>
    /// <exception cref="InvalidOperationException">There is none of this name that serves.</exception>
    public void GiveUpUnheard(string host)
    {
        int sub = Find(host);
        if (sub < 0)
        {
            throw new InvalidOperationException($"The VM has no sub-host '{host}' (any more).");
        }

        directory.Mark(Marker(sub, Unheard));
    }

    /// <summary>A pager has taken over without those of <see cref="GiveUpUnheard"/>, and has noted all that is lost with them.</summary>
    public void Settle()
    {
        foreach (int sub in Indices().Where(i => directory.Has(Marker(i, Unheard))))
        {
            directory.Rename(Marker(sub, Unheard), Marker(sub, "lost"));
        }
    }

    /// <summary>Lets those go that have been emptied. Called again and again.</summary>
    public void Dismiss(Pager pager, IReadOnlyList<RemoteStore> stores)
    {
        for (int sub = 0; sub < _subs.Length; sub++)
        {
            if (pager.FateOf(sub) != StoreFate.Leaves || pager.CopiesAt(sub) > 0)
            {
                continue;
            }

            directory.Mark(Marker(sub, "left"));
            pager.Forget(sub);
            stores[sub].Dispose();
            var peer = _subs[sub];
            // If it can't be told now, it is told again when the VM ends.
            _ = Task.Run(() => EndOfSplit.TryTell(spec, peer, certificate, pages, "the sub-host was removed from the split VM"));
        }
    }

    /// <summary>Some are being emptied: <see cref="Dismiss"/> is to be called again.</summary>
    public bool AnyLeaving(Pager pager) => Indices().Any(sub => pager.FateOf(sub) == StoreFate.Leaves);

    private static string Marker(int sub, string what) => $"sub-{sub}-{what}";

    /// <summary>The one of this name that has not left and is not lost: a host may have been a sub-host before. -1: there is none.</summary>
    private int Find(string host) => Array.FindLastIndex(
        _subs, s => string.Equals(s.Host, host, StringComparison.OrdinalIgnoreCase) && StateOf((int)s.SubIndex) is "serving" or "leaving");

    private IEnumerable<int> Indices() => Enumerable.Range(0, _subs.Length);
}
