using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>
/// Bounds how long the VM stands still before the commitment. Links that break are noticed by themselves; this is for a host whose kernel
/// acknowledges everything while its worker, or QEMU, does nothing: then the VM had better run on at the source.
/// </summary>
internal sealed class Standstill : IDisposable
{
    // Generous: nothing that works takes as long. A large device state takes a second, and the destination's QEMU is given as long to load it.
    private static readonly TimeSpan s_least = TimeSpan.FromSeconds(30);

    /// <summary>Of the downtime that the user allows, and of what sending the last pages takes at the rate they went before.</summary>
    private const double Times = 5;

    private readonly TimeSpan _limit;
    private readonly CancellationTokenSource _timer;
    private readonly CancellationTokenSource _either;
    private CancellationTokenRegistration _registration;

    /// <summary>Begins now.</summary>
    /// <param name="pages">To be sent while the VM stands still.</param>
    /// <param name="pagesPerSecond">As they went before; 0: not known.</param>
    /// <param name="cancel">What ends the waiting besides.</param>
    public Standstill(WorkerSpec spec, long pages, double pagesPerSecond, CancellationToken cancel)
    {
        _limit = Limit(spec, pages, pagesPerSecond);
        _timer = new CancellationTokenSource(_limit);
        _either = CancellationTokenSource.CreateLinkedTokenSource(_timer.Token, cancel);
    }

    public CancellationToken Token => _either.Token;

    public bool IsOver => _timer.IsCancellationRequested;

    public static TimeSpan Limit(WorkerSpec spec, long pages, double pagesPerSecond)
    {
        const double leastPagesPerSecond = 1000;
        double sending = pages / Math.Max(pagesPerSecond, leastPagesPerSecond);
        double seconds = Times * ((Convergence.AllowedMilliseconds(spec) / 1000) + sending);
        return TimeSpan.FromSeconds(Math.Clamp(seconds, s_least.TotalSeconds, int.MaxValue / 1000));
    }

    /// <param name="tell">Called once, on another thread, when the time is over.</param>
    public void WhenOver(Action<MigrationException> tell) => _registration = _timer.Token.Register(() => tell(Failure()));

    public MigrationException Failure() => new(
        $"The VM stood still for {_limit.TotalSeconds:0} s, and the main host had not got ready to run it. Look at the main host's load, and at the "
        + "worker's log there.");

    public void Dispose()
    {
        // Waits for a callback that runs.
        _registration.Dispose();
        _either.Dispose();
        _timer.Dispose();
    }
}
