using System.Net;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;

namespace FCtrans.Agent.Workers;

/// <summary>
/// What a main host's worker does that was started again: it takes over the VM's memory as soon as every store has said what it has. Until then it
/// says what it waits for, and heeds all that it would otherwise: the end of QEMU, SIGTERM, its source, and that a sub-host will not come back.
/// </summary>
internal sealed partial class MainRole
{
    private PagingResumption? _resumption;

    /// <summary>Says that faults are served again.</summary>
    private Action _resumed = static () => { };

    /// <summary>Sub-hosts that the resumption does without.</summary>
    private int[] _resumedWithout = [];

    /// <summary>Between the restart and the moment when faults are served again.</summary>
    private bool IsResuming => _resumption is not null;

    /// <returns>Whether there is a complete VM to serve.</returns>
    private bool Find()
    {
        _vm = DestinationVm.Find(_directory);
        if (_vm is null || !_directory.Has(Markers.Prepared))
        {
            return false;
        }

        StartStores();
        if (_directory.Read(Markers.SourceStore) is { } at)
        {
            AddSourceStore(IPEndPoint.Parse(at));
        }

        TellSourceAgain();
        _pinned = PageRunFile.Read(_directory.File(PinnedFile), _vm.Ram.PageCount);
        // One of an earlier version has none, and makes an empty one.
        _packed = PackedPages.Open(DestinationVm.MakePackedDirectory(_spec.SplitId), _vm.Ram.PageCount, mustExist: _directory.Has(Markers.Packed));
        _userfaultfds = _vm.AdoptUserfaultfds();
        _table = new PageTable(_vm.Ram.PageCount);
        // It takes no page any more, so what becomes of this table is no matter to it.
        _receiver = new MigrationReceiver(_vm.Ram, _packed, _table, _pinned, _roster.Subs.Length, this) { TableIsComplete = true };
        return true;
    }

    // No time limit: a sub-host that is away has pages that must not be taken for unused, so the VM waits for it.
    private void BeginResuming()
    {
        _resumedWithout = _roster.Gone;
        var lost = _roster.ReadLost();
        if (_roster.AnyUnheard)
        {
            // Of all these, those that nobody has.
            AwayPages.AddTo(_directory.Path, lost);
        }

        _table!.Dispose();
        _table = new PageTable(PageCount);
        _state = "waiting";
        _resumption = new(PagerOptions() with { Lost = lost }, _attention.Signal);
    }

    private void ContinueResuming()
    {
        lock (_stepGate)
        {
            if (_resumption is not { } resumption)
            {
                return;
            }

            int[] gone = _roster.Gone;
            if (!gone.SequenceEqual(_resumedWithout))
            {
                resumption.Dispose();
                _resumption = null;
                foreach (int sub in gone)
                {
                    _stores[sub].Dispose();
                }

                BeginResuming();
            }
            else if (resumption.HasEnded)
            {
                Resume(resumption);
            }
        }
    }

    private void Resume(PagingResumption resumption)
    {
        var pager = resumption.Take();
        _roster.Settle();
        try
        {
            _away = AwayPages.TryOpen(_directory.Path, PageCount) ?? AwayPages.Create(_directory.Path, _table!);
        }
        catch (IOException e)
        {
            // Of a worker that had none. Without it, a sub-host that is lost while the next one waits for it costs all that is not elsewhere.
            WorkerLog.Write($"which pages are away can't be noted: {e.Message}");
        }

        _table!.Away = _away;
        pager.Start();
        _roster.Continue(pager);
        _pager = pager;
        _resumed();
        resumption.Dispose();
        _resumption = null;
        if (!_directory.Has(Markers.Ran))
        {
            _state = "prepared";
            return;
        }

        _state = "paging";
        DrainSource();
        StartReclaim();
    }

    /// <summary>Why a VM whose worker was started again is not served yet; null when nothing is known to be amiss.</summary>
    private string? WhatIsAwaited()
    {
        if (_state != "waiting")
        {
            return null;
        }

        int[] gone = _roster.Gone;
        var away = _stores.FirstOrDefault(store => !gone.Contains(store.Index) && store.Problem is not null);
        return away is null ? null
            : $"{(away.Options.IsSource ? "The source" : "Sub-host")} {away.Options.Host}, without which nobody knows where the VM's memory is: {away.Problem}";
    }

    private InvalidOperationException NotPaging(string what) => new(IsResuming
        ? $"The main host's worker was started again and waits for what has the VM's memory. {what} when it pages again. {WhatIsAwaited()}".TrimEnd()
        : $"The VM is still being received. {what} when its migration has completed.");
}
