using FCtrans.Agent.Paging;

namespace FCtrans.Agent.Workers;

/// <summary>
/// Takes over the paging of a VM whose worker was started again, on a thread of its own: it takes as long as the last store takes to answer, and the
/// worker has other things to heed meanwhile. Its options' table is this attempt's alone: one that was given up leaves a part in it.
/// </summary>
internal sealed class PagingResumption : IDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly Thread _thread;
    private volatile Exception? _failure;
    private Pager? _pager;
    private volatile bool _hasEnded;

    /// <param name="options">The set of its lost pages is owned from now on.</param>
    /// <param name="ended">Called on that thread in the end.</param>
    public PagingResumption(PagerOptions options, Action ended)
    {
        _thread = new Thread(() =>
        {
            try
            {
                _pager = Pager.Resume(options, _stop.Token);
            }
            catch (Exception e)
            {
                _failure = e;
            }

            options.Lost?.Dispose();
            _hasEnded = true;
            ended();
        })
        {
            IsBackground = true,
            Name = "resumption",
        };
        _thread.Start();
    }

    /// <summary>There is a pager, or it failed.</summary>
    public bool HasEnded => _hasEnded;

    /// <summary>The pager, to be started; the caller's.</summary>
    /// <exception cref="IOException">It failed: says why.</exception>
    public Pager Take()
    {
        _thread.Join();
        if (_failure is { } failure)
        {
            throw new IOException($"The VM's memory could not be taken over: {failure.Message}", failure);
        }

        var pager = _pager!;
        _pager = null;
        return pager;
    }

    /// <summary>Gives up, unless it has ended. Stores and userfaultfds stay their owner's.</summary>
    public void Dispose()
    {
        _stop.Cancel();
        _thread.Join();
        _pager?.Dispose();
        _stop.Dispose();
    }
}
