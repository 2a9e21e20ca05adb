using System.Net;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>The hosts that hold the rest of the VM's memory: sub-hosts, which come and go, and for a while its source.</summary>
internal sealed partial class MainRole
{
    public void AddSubHost(AddSubHostRequest request)
    {
        lock (_stepGate)
        {
            if (!_directory.Has(Markers.Running) || _pager is not { } pager || _reclaim is not { } reclaim || _directory.Has(Markers.SourceStore))
            {
                throw NotPaging("Add the sub-host");
            }

            var peer = _roster.Admit(request, _spec.Copies > 1 || _directory.Has(Markers.TwoCopies));
            var store = Store(peer);
            try
            {
                Meet(store);
                FailurePoint.Reach("main.sub-host.connected");
                _roster.Note(peer);
            }
            catch
            {
                store.Dispose();
                throw;
            }

            FailurePoint.Reach("main.sub-host.noted");
            // Of the source, if it was a store, nothing is left but its place.
            _stores = [.. _stores.Take(store.Index), store];
            _sourceStore = null;
            pager.AddStore(store);
            reclaim.SubHosts = [.. _stores.Select(s => s.Options.Host)];
            WorkerLog.Write($"{peer.Host} has become a sub-host");
        }
    }

    public void RemoveSubHost(string host, bool lost)
    {
        lock (_stepGate)
        {
            if (lost && IsResuming)
            {
                _roster.GiveUpUnheard(host);
            }
            else if (!_directory.Has(Markers.Running) || _pager is not { } pager)
            {
                throw NotPaging("Remove the sub-host");
            }
            else
            {
                _roster.Remove(pager, host, lost);
            }
        }

        _attention.Signal();
    }

    private void StartStores()
    {
        _stores = [.. _roster.Subs.Select(Store)];
        int[] gone = _roster.Gone;
        foreach (var store in _stores.Where(s => !gone.Contains(s.Index)))
        {
            store.Start();
        }
    }

    private void ConnectStores()
    {
        StartStores();
        foreach (var store in _stores)
        {
            if (!SpinWait.SpinUntil(() => store.IsConnected, s_connectTimeout))
            {
                throw new MigrationException($"The main host can't reach sub-host {store.Options.Host}: {store.Problem}");
            }
        }
    }

    /// <summary>Connects to a store that is to come, which must have nothing of this VM: it would be taken for the VM's after a restart.</summary>
    private static void Meet(RemoteStore store)
    {
        store.Start();
        if (!SpinWait.SpinUntil(() => store.IsConnected, s_connectTimeout))
        {
            throw new InvalidOperationException($"The main host can't reach {store.Options.Host}: {store.Problem}");
        }

        long held = 0;
        using var patience = new CancellationTokenSource(s_connectTimeout);
        try
        {
            store.Bulk.List(range => held += range.Count, patience.Token);
        }
        catch (OperationCanceledException)
        {
            throw new InvalidOperationException($"{store.Options.Host} does not say what it stores: {store.Problem}");
        }

        if (held > 0)
        {
            throw new InvalidOperationException($"{store.Options.Host} stores {held >> 8} MiB of this VM already, which nobody put there.");
        }
    }

    private RemoteStore Store(Peer sub) => new(new RemoteStoreOptions
    {
        Index = (int)sub.SubIndex,
        Host = sub.Host,
        Address = IPAddress.Parse(sub.Address),
        Port = (int)sub.Port,
        Thumbprint = sub.Thumbprint,
        Certificate = _spec.Tls ? _certificate : null,
        SplitId = _spec.SplitId,
        Pages = PageCount,
    });

    private void AddSourceStore(IPEndPoint at)
    {
        var source = _spec.Peers.Single(peer => peer.Role == WorkerRole.Source);
        _sourceStore = new RemoteStore(new RemoteStoreOptions
        {
            Index = _roster.Subs.Length,
            Host = source.Host,
            Address = at.Address,
            Port = at.Port,
            Thumbprint = source.Thumbprint,
            Certificate = _spec.Tls ? _certificate : null,
            SplitId = _spec.SplitId,
            Pages = PageCount,
            IsSource = true,
        });
        _stores = [.. _stores, _sourceStore];
        _sourceStore.Start();
    }

    /// <summary>Once the VM runs here for good, what was left at the source comes too, and the source may end.</summary>
    private void DrainSource()
    {
        if (_sourceStore is not { } source)
        {
            return;
        }

        _pager!.DrainSource(source, () =>
        {
            FailurePoint.Reach("main.drain.emptied");
            // First of all: a restarted worker must not wait for a source that has ended.
            _directory.Rename(Markers.SourceStore, Markers.SourceEmptied);
            source.Retire();
            WorkerLog.Write($"nothing is at the source any more; sub-hosts took {_pager!.TakenBySubHosts} pages from there themselves");
            TellSourceAgain();
            if (_state == "paging")
            {
                StartReclaim();
            }
        });
    }

    /// <summary>Tells the source that nothing of it is needed, until it has heard it, as long as it may be there.</summary>
    private void TellSourceAgain()
    {
        if (_directory.Read(Markers.SourceEmptied) is { } at)
        {
            _sourceTold = Task.Run(() => TellSource(IPEndPoint.Parse(at), s_sourcePatience, "all that was left there has come"));
        }
    }

    private void TellSource(IPEndPoint at, TimeSpan patience, string reason)
    {
        var source = _spec.Peers.Single(peer => peer.Role == WorkerRole.Source).Clone();
        source.Address = at.Address.ToString();
        source.Port = (uint)at.Port;
        EndOfSplit.TryTell(_spec, source, _certificate, PageCount, reason, patience);
    }
}
