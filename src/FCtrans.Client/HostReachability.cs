using System.Security.Cryptography;
using FCtrans.Contracts;
using Google.Protobuf;

namespace FCtrans.Client;

/// <summary>Whether hosts reach each other where guest memory is to go: from agent to agent, on a port opened for it.</summary>
public static class HostReachability
{
    /// <summary>Tries every pair both ways, all at once.</summary>
    /// <returns>A check for each pair: of the host that is to be reached, in the order of <paramref name="hosts"/>.</returns>
    /// <exception cref="FCtransException">A host can't be asked.</exception>
    public static Task<IReadOnlyList<(KvmHostConnection Host, HostCheck Check)>> TestAsync(
        IReadOnlyList<KvmHostConnection> hosts, CancellationToken cancellation) =>
        TestAsync([.. hosts.SelectMany(to => hosts.Where(from => from != to).Select(from => (from, to)))], cancellation);

    /// <summary>Tries these pairs, all at once.</summary>
    /// <returns>A check for each pair: of the host that is to be reached, in the order in which they are named first.</returns>
    /// <exception cref="FCtransException">A host can't be asked.</exception>
    public static async Task<IReadOnlyList<(KvmHostConnection Host, HostCheck Check)>> TestAsync(
        IReadOnlyList<(KvmHostConnection From, KvmHostConnection To)> pairs, CancellationToken cancellation)
    {
        IEnumerable<(KvmHostConnection, HostCheck)>[] all = await Task.WhenAll(pairs.GroupBy(pair => pair.To).Select(async to =>
            (await ReachAsync(to.Key, [.. to.Select(pair => pair.From)], cancellation).ConfigureAwait(false)).Select(check => (to.Key, check)))).ConfigureAwait(false);
        return [.. all.SelectMany(checks => checks)];
    }

    private static async Task<IReadOnlyList<HostCheck>> ReachAsync(KvmHostConnection to, KvmHostConnection[] from, CancellationToken cancellation)
    {
        string address = to.DataAddress;
        ByteString token = ByteString.CopyFrom(RandomNumberGenerator.GetBytes(32));
        using var listening = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        IAsyncEnumerator<ListeningForProbe> port = to.ListenForProbeAsync(new ListenForProbeRequest { Address = address, Token = token }, listening.Token)
            .GetAsyncEnumerator(listening.Token);
        try
        {
            if (!await port.MoveNextAsync().ConfigureAwait(false))
            {
                return [];
            }

            var request = new ProbeRequest { Address = address, Port = port.Current.Port, Token = token };
            ProbeReply[] replies = await Task.WhenAll(from.Select(h => h.ProbeAsync(request, cancellation))).ConfigureAwait(false);
            return [.. replies.Zip(from).Select(p => Check(
                p.First.Reached,
                p.First.Reached
                    ? $"From {p.Second.Name}: {address} answers after {p.First.Microseconds:0} µs."
                    : $"From {p.Second.Name}: {address}, port {port.Current.Port}: {p.First.Detail.TrimEnd('.')}.",
                p.First.Reached
                    ? ""
                    : $"Let TCP from {p.Second.Name} to the ports that the check data-address names through the firewalls in between, or connect with another -DataAddress."))];
        }
        catch (FCtransException e) when (e.ErrorId == nameof(Failure.DataPortRefused))
        {
            return [Check(false, e.Message, e.Remedy)];
        }
        finally
        {
            await listening.CancelAsync().ConfigureAwait(false);
            try
            {
                await port.DisposeAsync().ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                // That is how it ends.
            }
        }
    }

    private static HostCheck Check(bool good, string detail, string remedy) => new()
    {
        Name = "reachable",
        Result = good ? "passed" : "failed",
        Detail = detail,
        Remedy = remedy,
        // The main host fetches from the source too, once the VM runs there.
        Parts = { "source", "main", "sub" },
    };
}
