using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Agent.Paging;
using FCtrans.Agent.Reclaim;

namespace FCtrans.Agent.Workers;

/// <summary>
/// Keeps a split VM free of what its guest has freed: soon after the VM has begun to run here, and again and again, finds the guest's free
/// memory and drops it, here and on the sub-hosts. So memory that the guest takes afresh never comes over the network. A thread of its own.
/// </summary>
internal sealed class MainReclaim : IDisposable
{
    private const int FirstMilliseconds = 250;
    private const int LongestMilliseconds = 4000;

    private static readonly TimeSpan s_monitorTimeout = TimeSpan.FromSeconds(1);

    private static readonly ReclaimLimits s_limits = new() { ProcessorPercent = 25 };

    private readonly int _processId;
    private readonly PagingReclaimTarget _target;
    private readonly CancellationTokenSource _stop = new();
    private readonly Thread _thread;
    private QemuMonitor? _monitor;
    private GuestRam? _ram;
    private UnusedPages? _pages;
    private ProcessorCheck? _check;
    private VmReclaim? _reclaim;
    private long _freedPages;
    private long _turns;
    private bool _disposed;

    public MainReclaim(Pager pager, int processId)
    {
        _processId = processId;
        _target = pager.OpenReclaimTarget();
        _thread = new Thread(Run) { IsBackground = true, Name = "reclaim" };
        _thread.Start();
    }

    /// <summary>Pages given back since this worker began.</summary>
    public long FreedPages => Volatile.Read(ref _freedPages);

    /// <summary>How many times the guest's free memory was looked for, and what was found was given back, since this worker began.</summary>
    public long Turns => Volatile.Read(ref _turns);

    /// <summary>Before the pager is stopped and the stores are disposed.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        _stop.Cancel();
        _target.Stop();
        _thread.Join();
        _check?.Dispose();
        _reclaim?.Dispose();
        _pages?.Dispose();
        _ram?.Dispose();
        _monitor?.Dispose();
        _target.Dispose();
        _stop.Dispose();
    }

    private void Run()
    {
        int pause = FirstMilliseconds;
        bool first = true;
        string last = "";
        while (!_stop.Token.WaitHandle.WaitOne(pause))
        {
            try
            {
                if (!TryTurn(settledOnly: !first))
                {
                    return;
                }

                first = false;
            }
            catch (Exception e) when (e is MonitorException or IOException or KernelException or GuestRamException)
            {
                // Somebody else uses the monitor, or the VM is ending: the next turn tells.
                if (e.Message != last)
                {
                    last = e.Message;
                    WorkerLog.Write($"reclaim: {e.Message}");
                }
            }
            finally
            {
                // A monitor has one client at a time: between the turns it is free for others.
                _monitor?.Dispose();
                _monitor = null;
            }

            pause = Math.Min(pause * 2, LongestMilliseconds);
        }
    }

    /// <summary>False when the VM has ended.</summary>
    private bool TryTurn(bool settledOnly)
    {
        if (QemuProcesses.TryOpen(_processId) is not { } process)
        {
            return false;
        }

        _monitor = QemuMonitor.Connect(process.MonitorPath, s_monitorTimeout);
        _monitor.CommandTimeout = s_monitorTimeout;
        if (_reclaim is null)
        {
            IReadOnlyList<GuestProcessor> Ask() => GuestProcessor.Ask(_monitor!);
            _ram ??= GuestRamFactory.Open(process, _monitor);
            _pages ??= UnusedPages.Open(_ram, mayMap: false, Ask);
            _check ??= new ProcessorCheck(Ask);
            _reclaim = new(_ram, _pages, _target, _check);
        }

        var figures = _reclaim.Turn(s_limits, settledOnly, _stop.Token);
        _target.Saw(_reclaim.SeenFree);
        Volatile.Write(ref _freedPages, _freedPages + figures.FreedPages);
        Volatile.Write(ref _turns, _turns + 1);
        return true;
    }
}
