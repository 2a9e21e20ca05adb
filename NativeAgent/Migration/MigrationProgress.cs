using System.Diagnostics;
using System.Globalization;
using FCtrans.Contracts;

namespace FCtrans.Agent.Migration;

/// <summary>
/// The figures of one migration, written by its thread and read by any. Every access holds the one lock; it is taken a few
/// times a round, never per page.
/// </summary>
internal sealed class MigrationProgress
{
    private readonly Lock _gate = new();
    private readonly MigrationStatus _status = new() { State = MigrationState.Preparing };
    private long _began;
    private long _stopped;
    private TimeSpan _processorBefore = Environment.CpuUsage.TotalTime;
    private bool _clockStopped;
    private ulong _peakMemory;

    /// <summary>Adds to a copy what changes all the time, until the migration has ended. Called by any thread that looks.</summary>
    public Action<MigrationStatus>? Live { private get; set; }

    public MigrationState State
    {
        get
        {
            lock (_gate)
            {
                return _status.State;
            }
        }
    }

    /// <summary>The transfer begins: time counts from here.</summary>
    public void Begin()
    {
        lock (_gate)
        {
            _began = Stopwatch.GetTimestamp();
            _processorBefore = Environment.CpuUsage.TotalTime;
            _status.State = MigrationState.PreCopy;
        }
    }

    /// <summary>When the transfer began and when the VM stood still, as <see cref="Stopwatch"/> has it, which all processes of a host share; for <see cref="Restore"/>.</summary>
    /// <remarks>The second is 0 while the VM runs: before, or at its destination.</remarks>
    public (long Began, long Stopped) Moments
    {
        get
        {
            lock (_gate)
            {
                return (_began, _stopped);
            }
        }
    }

    /// <summary>Goes on with the figures of a worker that was killed.</summary>
    public void Restore(MigrationStatus before, (long Began, long Stopped) moments)
    {
        lock (_gate)
        {
            _status.MergeFrom(before);
            (_began, _stopped) = moments;
            _clockStopped = _stopped == 0;
            _processorBefore = Environment.CpuUsage.TotalTime - TimeSpan.FromSeconds(before.SourceProcessorSeconds);
            _peakMemory = before.SourcePeakMemoryBytes;
        }
    }

    /// <summary>The VM stands still since then: its downtime counts on until <see cref="VmRuns"/>.</summary>
    public void VmStands(long since)
    {
        lock (_gate)
        {
            _stopped = since;
        }
    }

    /// <summary>It runs at its destination, where its downtime has ended.</summary>
    public void VmRuns(long since)
    {
        lock (_gate)
        {
            if (_stopped != 0)
            {
                _status.DowntimeMilliseconds = Stopwatch.GetElapsedTime(_stopped, since).TotalMilliseconds;
                _stopped = 0;
            }
        }
    }

    public void Update(Action<MigrationStatus> change)
    {
        lock (_gate)
        {
            change(_status);
        }
    }

    /// <summary>The VM runs at its destination: the time does not count on.</summary>
    public void StopClock()
    {
        lock (_gate)
        {
            if (!_clockStopped)
            {
                _status.TotalSeconds = Elapsed();
                _clockStopped = true;
            }
        }
    }

    /// <summary>Sets the final state and stops the clock. Only the first call counts.</summary>
    public void End(MigrationState state, string error)
    {
        lock (_gate)
        {
            if (_status.State.HasEnded())
            {
                return;
            }

            if (!_clockStopped)
            {
                _status.TotalSeconds = Elapsed();
            }

            _status.State = state;
            _status.Error = error;
            NoteOwnCost(_status);
        }
    }

    /// <summary>A copy as of now.</summary>
    public MigrationStatus Snapshot()
    {
        lock (_gate)
        {
            var copy = _status.Clone();
            if (_began != 0 && !copy.State.HasEnded())
            {
                NoteOwnCost(copy);
                Live?.Invoke(copy);
            }

            if (!_clockStopped && copy.State is (MigrationState.PreCopy or MigrationState.SwitchOver))
            {
                copy.TotalSeconds = Elapsed();
            }

            if (_stopped != 0 && !copy.State.HasEnded())
            {
                copy.DowntimeMilliseconds = Stopwatch.GetElapsedTime(_stopped).TotalMilliseconds;
            }

            return copy;
        }
    }

    /// <summary>What this process has resident, without the VM's memory that it has mapped to look at it.</summary>
    private static ulong OwnMemoryBytes()
    {
        ulong bytes = 0;
        foreach (string line in File.ReadLines("/proc/self/status"))
        {
            if (line.StartsWith("RssAnon:", StringComparison.Ordinal) || line.StartsWith("RssFile:", StringComparison.Ordinal))
            {
                bytes += ulong.Parse(line.AsSpan(8).Trim(" \tkB"), CultureInfo.InvariantCulture) << 10;
            }
        }

        return bytes;
    }

    private void NoteOwnCost(MigrationStatus status)
    {
        status.SourceProcessorSeconds = (Environment.CpuUsage.TotalTime - _processorBefore).TotalSeconds;
        _peakMemory = Math.Max(_peakMemory, OwnMemoryBytes());
        status.SourcePeakMemoryBytes = _peakMemory;
    }

    private double Elapsed() => _began == 0 ? 0 : Stopwatch.GetElapsedTime(_began).TotalSeconds;
}
