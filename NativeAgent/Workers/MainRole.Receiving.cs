using System.Globalization;
using System.Net;
using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Migration;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Storage;
using FCtrans.Agent.Tracking;
using FCtrans.Agent.Transport;
using FCtrans.Contracts;

namespace FCtrans.Agent.Workers;

/// <summary>
/// The main host's side of a migration: an empty VM that waits, what the source sends it, and what its control messages make happen, up to the moment
/// when the VM runs here; and the end of it all when the source goes away before.
/// </summary>
internal sealed partial class MainRole
{
    public void LeftAtSource(IPAddress address, int port)
    {
        var at = new IPEndPoint(address, port);
        _directory.Mark(Markers.SourceStore, at.ToString());
        AddSourceStore(at);
    }

    public void TableComplete()
    {
        FailurePoint.Reach("main.table-complete");
        EmptyBeside();
        // For a worker that is started again: until it has looked into the guest itself.
        PageRunFile.Write(_directory.File(PinnedFile), _pinned!);
        // Loading the device state may read guest RAM, so its faults must be served before that.
        _away = AwayPages.Create(_directory.Path, _table!);
        _table!.Away = _away;
        _pager = new Pager(PagerOptions());
        _pager.Start();
    }

    public void DeviceState(ReadOnlySpan<byte> piece, bool last)
    {
        _vm!.FeedDeviceState(piece);
        if (!last)
        {
            return;
        }

        _vm.WaitLoaded();
        FailurePoint.Reach("main.loaded");
        lock (_stepGate)
        {
            if (_giveUp.IsSet)
            {
                throw new MigrationException(_givenUpBecause!);
            }

            _directory.Mark(Markers.Prepared);
        }
    }

    public void Commit()
    {
        lock (_stepGate)
        {
            if (!_directory.Has(Markers.Prepared))
            {
                throw new MigrationException("The source committed a VM that is not complete here.");
            }

            // Only a VM that really ran is answered for: the source ends its own at that word.
            if (_directory.Has(Markers.Ran))
            {
                return;
            }

            if (_pager is null)
            {
                throw new MigrationException($"The main host's worker was started again and can't run the VM yet. {WhatIsAwaited()}");
            }

            if (!_directory.Has(Markers.Running))
            {
                FailurePoint.Reach("main.committed");
                _directory.Mark(Markers.Running);
                FailurePoint.Reach("main.running");
            }

            RunVm();
        }
    }

    void IMigrationEvents.Abort(string reason)
    {
        lock (_stepGate)
        {
            if (!_directory.Has(Markers.Running))
            {
                GiveUp(reason);
            }
        }
    }

    private void Begin()
    {
        CheckRoom();
        // Of a worker that was killed right here.
        DestinationVm.Remove(_directory);
        try
        {
            StartVm();
        }
        catch
        {
            _vm?.Kill();
            DestinationVm.Remove(_directory);
            throw;
        }
    }

    private void StartVm()
    {
        _vm = DestinationVm.Start(_spec, _directory);
        ConnectStores();
        CheckBlocks();
        _userfaultfds = _vm.OpenUserfaultfds();
        _packed = PackedPages.Open(DestinationVm.MakePackedDirectory(_spec.SplitId), _vm.Ram.PageCount);
        _directory.Mark(Markers.Packed);
        _table = new PageTable(_vm.Ram.PageCount);
        _pinned = new PageBitmap(_vm.Ram.PageCount);
        _receiver = new MigrationReceiver(_vm.Ram, _packed, _table, _pinned, _roster.Subs.Length, this);
        _vm.ExpectDeviceState();
    }

    private void CheckRoom()
    {
        long free = new DriveInfo("/dev/shm").AvailableFreeSpace;
        if (free < (long)_spec.MainMemoryBytes)
        {
            throw new MigrationException(string.Create(
                CultureInfo.InvariantCulture,
                $"The main host's /dev/shm has {free} bytes free, and the VM is to have {_spec.MainMemoryBytes} there. Enlarge it (mount -o remount,size=…), or give a smaller -MainMemory."));
        }
    }

    private void CheckBlocks()
    {
        var blocks = _vm!.Ram.Blocks;
        bool same = blocks.Length == _spec.RamBlocks.Count;
        for (int i = 0; same && i < blocks.Length; i++)
        {
            same = blocks[i].Id == _spec.RamBlocks[i].Id && (ulong)blocks[i].PageCount << PageIndex.PageShift == _spec.RamBlocks[i].SizeBytes;
        }

        if (!same)
        {
            throw new MigrationException("The destination's QEMU has other RAM blocks than the source's.");
        }
    }

    private PeerListener Listen(int port) => new(
        new PeerListenerOptions
        {
            Address = IPAddress.Parse(_spec.ListenAddress),
            Port = port,
            Role = WorkerRole.Main,
            SplitId = _spec.SplitId,
            Pages = _vm!.Ram.PageCount,
            Certificate = _spec.Tls ? _certificate : null,
            Peers = _spec.Peers.Where(peer => peer.Role == WorkerRole.Source).ToDictionary(peer => peer.Thumbprint, peer => peer.Role),
        },
        Serve);

    private void Serve(FrameConnection connection, PeerHello hello)
    {
        bool control = hello.Purpose == ConnectionPurpose.Control;
        if (control)
        {
            Interlocked.Increment(ref _controlConnections);
        }

        string why = "the source closed its connection";
        bool final = false;
        try
        {
            _receiver!.Serve(connection);
        }
        catch (Exception e) when (e is IOException or MigrationException or MonitorException or InvalidOperationException)
        {
            why = e.Message;
            // A lost connection may come again; what could not be done stays so.
            final = e is not IOException or ProtocolException;
            WorkerLog.Write($"{hello.Purpose} connection of the source ended: {e.Message}");
            TryTellSource(connection, control, e.Message);
            if (e is ProtocolException)
            {
                // It has been told why; closing over what it still sends would keep that from it.
                connection.Drain();
            }
        }

        if (control && Interlocked.Decrement(ref _controlConnections) == 0)
        {
            _controlPatience = s_controlPatience;
            _controlLost = why;
            Interlocked.Exchange(ref _controlLostAt, final ? long.MinValue : Environment.TickCount64);
            GiveUpWithoutSource();
        }
    }

    /// <summary>A VM that is not complete is of no use when its source does not come back.</summary>
    private void GiveUpWithoutSource()
    {
        if (_controlLost.Length == 0 || _controlConnections > 0)
        {
            return;
        }

        long lostAt = Interlocked.Read(ref _controlLostAt);
        if (lostAt != long.MinValue && Environment.TickCount64 - lostAt < _controlPatience.TotalMilliseconds)
        {
            return;
        }

        lock (_stepGate)
        {
            // A complete VM waits for the source's word, however long it takes: the source may have committed.
            if (!_directory.Has(Markers.Prepared))
            {
                GiveUp($"The source went away before the VM was complete: {_controlLost}.");
            }
        }
    }

    private static void TryTellSource(FrameConnection connection, bool control, string reason)
    {
        if (!control)
        {
            return;
        }

        try
        {
            connection.SendText(FrameType.Control, (byte)ControlCode.Failed, reason);
        }
        catch (IOException)
        {
            // It has gone, and finds out by that.
        }
    }

    /// <summary>
    /// Where a page lies packed, the RAM file has none: the guest would find it there. Something may be there all the same: a tmpfs with huge pages
    /// makes 512 where one is written.
    /// </summary>
    private void EmptyBeside()
    {
        for (long from = 0; _packed!.NextRun(from, out var run); from = run.End)
        {
            for (var left = run; left.Count > 0;)
            {
                var block = _vm!.Ram.BlockOf(left.First);
                var part = new PageRange(left.First, Math.Min(left.Count, block.EndPage - left.First));
                long offset = (part.First - block.FirstPage) << PageIndex.PageShift;
                if (SparseFile.NextData(block.File, offset) is >= 0 and var data && data < offset + part.Bytes
                    && SparseFile.PunchHole(block.File, offset, part.Bytes) is not 0 and var errno)
                {
                    throw new KernelException("empty what is packed beside the VM's RAM", errno);
                }

                left = new(part.End, left.Count - part.Count);
            }
        }
    }
}
