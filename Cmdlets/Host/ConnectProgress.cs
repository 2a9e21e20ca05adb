using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>Tells how connecting to hosts comes on: how many are there, and of each that is not, what is done. For several threads at once.</summary>
internal sealed class ConnectProgress : IDisposable
{
    private const int Activity = 4300;

    private readonly object _lock = new(); // guards the writer, and what follows
    private readonly ProgressWriter _writer;
    private readonly KvmHostSettings[] _hosts;
    private readonly double[] _shares;
    private int _there;

    public ConnectProgress(IEnumerable<KvmHostSettings> hosts, Action<ProgressRecord> write)
    {
        _hosts = [.. hosts];
        _shares = new double[_hosts.Length];
        _writer = new ProgressWriter(write, Activity, "Connecting to hosts");
    }

    /// <param name="index">Which of the hosts.</param>
    /// <param name="what">What is done.</param>
    /// <param name="share">How much of it, 0 to 1; null: nobody knows.</param>
    public void Step(int index, string what, double? share)
    {
        lock (_lock)
        {
            // The upload is what takes long where there is one: it counts for nearly all of a host.
            _shares[index] = share is { } part ? Math.Max(_shares[index], 0.9 * part) : _shares[index];
            Tell();
            _writer.TellPart(index, NameOf(index), share is { } known ? $"{what}: {known * 100:0}%" : what);
        }
    }

    /// <summary>A host is connected, or is not going to be.</summary>
    public void Ended(int index, bool connected)
    {
        lock (_lock)
        {
            _there++;
            _shares[index] = 1;
            Tell();
            _writer.TellPart(index, NameOf(index), connected ? "connected" : "failed");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_lock)
        {
            _writer.Dispose();
        }
    }

    private string NameOf(int index) => _hosts[index].Name ?? _hosts[index].HostName;

    private void Tell() => _writer.Tell($"{_there} of {_hosts.Length}", _shares.Sum() / _hosts.Length);
}
