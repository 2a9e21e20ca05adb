using FCtrans.Agent.Diagnostics;
using FCtrans.Agent.Transport;

namespace FCtrans.Agent.Paging;

/// <summary>
/// Asks after a store that owes pages and says nothing, by a second connection. After a cut TCP repeats what was lost at intervals that double: a
/// link that was away for two seconds is used again more than a second after it came back, while a new connection has it within a
/// fifth of one. As soon as there is one and the first is still silent, it takes its place, and what is owed is asked for anew.
/// <para>
/// To a store that is merely slow this costs a connection now and then: there is one probe at a time, and the next one a while after it. What is
/// under way is asked for once more, and then not again before the store has answered something.
/// </para>
/// </summary>
internal sealed class StoreProbe : IDisposable
{
    private static readonly TimeSpan s_attempt = TimeSpan.FromSeconds(1);

    private readonly RemoteStoreOptions _options;
    private readonly Func<bool> _isSilent;
    private readonly Func<FrameConnection, bool> _tryMove;
    private readonly Thread _thread;

    // Never disposed: the fault thread may set it when this is.
    private readonly AutoResetEvent _begin = new(false);
    private readonly CancellationTokenSource _stop = new();
    private volatile bool _underWay;
    private long _notBefore = long.MinValue;

    /// <param name="isSilent">Whether it still owes answers and says nothing.</param>
    /// <param name="tryMove">Takes a connection for demanded pages; false when nobody is silent any more.</param>
    public StoreProbe(RemoteStoreOptions options, Func<bool> isSilent, Func<FrameConnection, bool> tryMove)
    {
        _options = options;
        _isSilent = isSilent;
        _tryMove = tryMove;
        _thread = new Thread(Run) { IsBackground = true, Name = $"probe-{options.Index}" };
    }

    public void Start() => _thread.Start();

    /// <summary>The store is silent. For one thread, the fault thread; allocates nothing.</summary>
    public void Begin()
    {
        if (!_underWay && Environment.TickCount64 >= Interlocked.Read(ref _notBefore))
        {
            _underWay = true;
            _begin.Set();
        }
    }

    /// <summary>Waits until none is under way, and there will be none.</summary>
    public void Dispose()
    {
        _stop.Cancel();
        _begin.Set();
        if (!_thread.ThreadState.HasFlag(ThreadState.Unstarted))
        {
            _thread.Join();
        }
    }

    private void Run()
    {
        while (true)
        {
            _begin.WaitOne();
            if (_stop.IsCancellationRequested)
            {
                return;
            }

            Probe();
            Interlocked.Exchange(ref _notBefore, Environment.TickCount64 + (long)_options.ProbePause.TotalMilliseconds);
            _underWay = false;
        }
    }

    private void Probe()
    {
        while (_isSilent() && !_stop.IsCancellationRequested)
        {
            try
            {
                var connection = _options.Connect(ConnectionPurpose.Demand, s_attempt, out _, _stop.Token);
                FailurePoint.Reach("main.probe.connected");
                if (!_tryMove(connection))
                {
                    connection.Dispose();
                }

                return;
            }
            catch (OperationCanceledException)
            {
                return;
            }
            catch (PeerConnectionException e)
            {
                if (e.IsRefused)
                {
                    // The channels hear the same when their connections have ended, and say so.
                    return;
                }
            }
        }
    }
}
