using System.Collections.Concurrent;
using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>
/// What all cmdlets share: work off the pipeline thread whose messages a queue brings back to it (PowerShell lets only that
/// thread write), Ctrl+C that cancels the work and waits for its clean end, and errors with an id, a category and a target.
/// </summary>
public abstract class FCtransCmdlet : PSCmdlet, IDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly HashSet<(string Host, string What)> _told = [];

    /// <inheritdoc/>
    public void Dispose()
    {
        _stop.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <inheritdoc/>
    protected override void StopProcessing()
    {
        try
        {
            _stop.Cancel();
        }
        catch (ObjectDisposedException)
        {
            // Stopped at the very end.
        }
    }

    /// <summary>
    /// Runs the work on the thread pool and, until it ends, whatever it posts on this thread. When this thread is stopped in
    /// between, the work is cancelled and its end awaited: nothing goes on behind the prompt.
    /// </summary>
    private protected T Await<T>(Func<Action<Action>, CancellationToken, Task<T>> work)
    {
        using var queue = new BlockingCollection<Action>();
        void Post(Action action)
        {
            try
            {
                queue.Add(action);
            }
            catch (InvalidOperationException)
            {
                // The work has ended; what a straggler has to say does not matter any more.
            }
        }

        Task<T> task = Task.Run(() =>
        {
            HostCalls.Listener = call => Post(() => Tell(call));
            return work(Post, _stop.Token);
        });
        _ = task.ContinueWith(_ => queue.CompleteAdding(), TaskScheduler.Default);
        try
        {
            foreach (Action action in queue.GetConsumingEnumerable())
            {
                if (!_stop.IsCancellationRequested)
                {
                    action();
                }
            }
        }
        finally
        {
            if (!task.IsCompleted)
            {
                StopProcessing();
                ((IAsyncResult)task).AsyncWaitHandle.WaitOne();
            }
        }

        try
        {
            return task.GetAwaiter().GetResult();
        }
        catch (OperationCanceledException)
        {
            throw new PipelineStoppedException();
        }
    }

    private protected T Await<T>(Func<CancellationToken, Task<T>> work) => Await((_, stop) => work(stop));

    /// <summary>What was asked of which host, and how long it took: -Verbose tells each thing once, -Debug every time.</summary>
    private void Tell(HostCall call)
    {
        if (_told.Add((call.Host, call.What)))
        {
            WriteVerbose(Text(call));
        }
        else
        {
            WriteDebug(Text(call));
        }
    }

    internal static string Text(HostCall call) =>
        $"{call.Host}: {call.What}: {Loader.Display.Microseconds(call.Took.TotalMicroseconds)}{(call.Succeeded ? "" : ", without an answer")}";

    /// <summary>Waits; false when the pipeline is to stop.</summary>
    private protected bool Pause(TimeSpan time) => !_stop.Token.WaitHandle.WaitOne(time);

    /// <summary>Runs one item's part; its failure is written as an error about the item, and the next item has its turn.</summary>
    /// <returns>Whether it went well.</returns>
    private protected bool ForItem(object target, Action part)
    {
        try
        {
            part();
            return true;
        }
        catch (FCtransException e)
        {
            WriteError(Errors.Record(e, target));
            return false;
        }
    }

    /// <summary>The hosts that a parameter names, or all connected ones; each that is not connected gets an error.</summary>
    private protected KvmHost[] Hosts(KvmHostReference[]? named)
    {
        if (named is not null)
        {
            var hosts = new List<KvmHost>();
            foreach (KvmHostReference reference in named)
            {
                ForItem(reference.ToString(), () => hosts.AddRange(reference.ResolveAll()));
            }

            return [.. hosts.Distinct()];
        }

        KvmHost[] all = HostRegistry.All;
        if (all.Length == 0)
        {
            WriteError(Errors.Record(Failure.NoHostConnected(), null));
        }

        return all;
    }

    /// <summary>The same for VMs that are meant: where these are hosts and no parameter names any, nobody else need be asked.</summary>
    private protected KvmHost[] Hosts(KvmHostReference[]? named, IReadOnlyCollection<VmReference> vms) => Hosts(
        named is null && vms.Count > 0 && vms.All(v => v.Host is not null) ? [.. vms.Select(v => new KvmHostReference(v.Host!))] : named);

    /// <summary>Asks every host at once and gives the answers in the hosts' order; a host that fails gets its error.</summary>
    private protected void ForHosts<T>(
        IReadOnlyCollection<KvmHost> hosts, Func<KvmHost, CancellationToken, Task<T>> ask, Action<KvmHost, T> answered,
        Action? failed = null)
    {
        (KvmHost Host, Task<T> Task)[] all = Await(async stop =>
        {
            (KvmHost, Task<T>)[] asked = [.. hosts.Select(h => (h, Task.Run(() => ask(h, stop), stop)))];
            await Task.WhenAll(asked.Select(a => a.Item2 as Task)).ContinueWith(_ => { }, TaskScheduler.Default)
                .ConfigureAwait(false);
            stop.ThrowIfCancellationRequested();
            return asked;
        });
        foreach ((KvmHost host, Task<T> task) in all)
        {
            if (!ForItem(host, () => answered(host, task.GetAwaiter().GetResult())))
            {
                failed?.Invoke();
            }
        }
    }
}
