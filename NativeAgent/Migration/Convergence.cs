using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>What comes after a round.</summary>
internal enum NextStep
{
    Round,

    /// <summary>Stop the VM and send the rest.</summary>
    SwitchOver,

    /// <summary>Stop the VM and leave the rest at the source.</summary>
    Leave,
}

/// <summary>
/// Decides after each round of pre-copy whether another one is worth it: until the rest fits the downtime that the user allows, or
/// the guest writes as fast as the hosts take it. One thread's.
/// </summary>
internal sealed class Convergence(WorkerSpec spec, bool mayLeave)
{
    private const int DefaultMaxRounds = 30;
    private const double DefaultMaxDowntimeMilliseconds = 300;

    // Of the downtime that the user allows, what sending the last pages may take; the rest is QEMU's device state, the round
    // trips and the exact scan.
    private const double LastRoundShare = 0.5;

    /// <summary>A round that leaves more than this part of what the one before left does not converge.</summary>
    private const double Shrinking = 0.7;

    /// <summary>So many rounds in a row that do not converge end it: one may be bad luck.</summary>
    private const int Hopeless = 2;

    private long _before = long.MaxValue;
    private int _notShrinking;

    /// <summary>Whether the rest may stay at the source.</summary>
    public bool MayLeave => mayLeave;

    /// <summary>As it goes now; negative: it does not converge.</summary>
    public double EstimatedSecondsLeft { get; private set; }

    /// <summary>What sending the last pages may take, in milliseconds.</summary>
    public static double AllowedMilliseconds(WorkerSpec spec) =>
        (spec.MaxDowntimeMilliseconds > 0 ? spec.MaxDowntimeMilliseconds : DefaultMaxDowntimeMilliseconds) * LastRoundShare;

    /// <param name="round">Rounds done.</param>
    /// <param name="dirtyPages">What the guest has written since the last one began, and so what the next would send.</param>
    /// <param name="pagesPerSecond">As the last round went; 0 when it sent nothing.</param>
    /// <param name="limitIsOver">The time that the user allows for pre-copy.</param>
    public NextStep After(int round, long dirtyPages, double pagesPerSecond, bool limitIsOver)
    {
        int maxRounds = spec.MaxRounds > 0 ? spec.MaxRounds : DefaultMaxRounds;
        double milliseconds = dirtyPages == 0 ? 0 : pagesPerSecond > 0 ? dirtyPages / pagesPerSecond * 1000 : double.MaxValue;
        double ratio = _before is long.MaxValue or 0 ? 0 : (double)dirtyPages / _before;
        _notShrinking = ratio > Shrinking ? _notShrinking + 1 : 0;
        _before = dirtyPages;
        // The rest shrinks by the same ratio each round, so the time left is a geometric series.
        EstimatedSecondsLeft = ratio >= 1 || pagesPerSecond == 0 ? -1 : milliseconds / 1000 / (1 - ratio);
        if (milliseconds < AllowedMilliseconds(spec))
        {
            return NextStep.SwitchOver;
        }

        if (mayLeave)
        {
            return limitIsOver || round >= maxRounds || _notShrinking >= Hopeless ? NextStep.Leave : NextStep.Round;
        }

        return round >= maxRounds ? NextStep.SwitchOver : NextStep.Round;
    }
}
