using System.Diagnostics;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Introspection;

namespace FCtrans.Agent.Reclaim;

/// <summary>
/// Asks whether the guest still runs the kernel whose structures are read, with a time limit: a processor that waits for a page that
/// is frozen can't be asked before it is thawed, so the question must be given up then. Has a thread of its own; one caller at a time.
/// </summary>
internal sealed class ProcessorCheck : IDisposable
{
    private const double ShortestMilliseconds = 4;
    private const double LongestMilliseconds = 60;

    private readonly Func<IReadOnlyList<GuestProcessor>> _ask;
    private readonly int? _limitMilliseconds;
    private readonly SemaphoreSlim _asked = new(0);
    private readonly SemaphoreSlim _answered = new(0);
    private readonly Thread _thread;
    private double _usualMilliseconds = 1;
    private volatile GuestKernel? _kernel;
    private volatile bool _runs;
    private volatile bool _stop;
    private bool _late;
    private long _askedAt;
    private long _answeredAt;

    /// <param name="ask">Asks QEMU's monitor; nobody else may use that monitor meanwhile.</param>
    /// <param name="limitMilliseconds">How long an answer may take; by default some times what it usually takes, at most 60 ms.</param>
    public ProcessorCheck(Func<IReadOnlyList<GuestProcessor>> ask, int? limitMilliseconds = null)
    {
        _ask = ask;
        _limitMilliseconds = limitMilliseconds;
        _thread = new Thread(Run) { IsBackground = true, Name = "processors" };
        _thread.Start();
    }

    /// <summary>Whether the answer to the question that was begun is there: <see cref="End"/> does not wait.</summary>
    public bool IsAnswered => _answered.CurrentCount > 0;

    /// <summary>Asks whether the guest runs <paramref name="kernel"/>; <see cref="End"/> tells.</summary>
    public void Begin(GuestKernel kernel)
    {
        _kernel = kernel;
        _askedAt = Stopwatch.GetTimestamp();
        _asked.Release();
    }

    /// <summary>
    /// Whether it is certain that the guest ran its kernel after <see cref="Begin"/> was called. After false call <see cref="Settle"/> when
    /// nothing is frozen any more.
    /// </summary>
    public bool End()
    {
        double limit = _limitMilliseconds ?? Math.Clamp(_usualMilliseconds * 8, ShortestMilliseconds, LongestMilliseconds);
        _late = !_answered.Wait((int)Math.Max(0, limit - Stopwatch.GetElapsedTime(_askedAt).TotalMilliseconds));
        if (!_late)
        {
            _usualMilliseconds += (Stopwatch.GetElapsedTime(_askedAt, _answeredAt).TotalMilliseconds - _usualMilliseconds) / 8;
        }

        return !_late && _runs;
    }

    /// <summary>Waits for an answer that came too late.</summary>
    public void Settle()
    {
        if (_late)
        {
            _answered.Wait();
            _late = false;
            // A busy host answers slowly: without this the limit could stay too short for ever.
            _usualMilliseconds = Math.Min(_usualMilliseconds * 1.25, LongestMilliseconds / 8);
        }
    }

    public void Dispose()
    {
        Settle();
        _stop = true;
        _asked.Release();
        _thread.Join();
        _asked.Dispose();
        _answered.Dispose();
    }

    private void Run()
    {
        while (true)
        {
            _asked.Wait();
            if (_stop)
            {
                return;
            }

            try
            {
                _runs = GuestProcessor.Run(_ask(), _kernel!, out _);
            }
            catch (Exception e) when (e is MonitorException or IOException)
            {
                _runs = false;
            }

            _answeredAt = Stopwatch.GetTimestamp();
            _answered.Release();
        }
    }
}
