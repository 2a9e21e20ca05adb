using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>The connected hosts of this PowerShell process, by name, in the order of connecting. Thread-safe.</summary>
internal static class HostRegistry
{
    private static readonly List<KvmHost> s_hosts = [];

    public static KvmHost[] All
    {
        get
        {
            lock (s_hosts)
            {
                return [.. s_hosts];
            }
        }
    }

    /// <summary>Adds a host; one of the same name is replaced and given back.</summary>
    public static KvmHost? Add(KvmHost host)
    {
        lock (s_hosts)
        {
            int old = s_hosts.FindIndex(h => SameName(h.Name, host.Name));
            if (old < 0)
            {
                s_hosts.Add(host);
                return null;
            }

            KvmHost replaced = s_hosts[old];
            s_hosts[old] = host;
            return replaced;
        }
    }

    /// <summary>Removes the host whose connection this is: Get-KvmHost may have put a newer object in the place of this one.</summary>
    public static void Remove(KvmHost host)
    {
        lock (s_hosts)
        {
            s_hosts.RemoveAll(h => h.Connection == host.Connection);
        }
    }

    public static KvmHost? Find(string name)
    {
        lock (s_hosts)
        {
            return s_hosts.Find(h => SameName(h.Name, name));
        }
    }

    /// <summary>Hosts whose name matches; a name without wildcards that is not there is an error.</summary>
    public static KvmHost[] Match(string pattern)
    {
        var wildcard = new WildcardPattern(pattern, WildcardOptions.IgnoreCase);
        KvmHost[] found = [.. All.Where(h => wildcard.IsMatch(h.Name))];
        return found.Length > 0 || WildcardPattern.ContainsWildcardCharacters(pattern)
            ? found
            : throw Failure.HostNotConnected(pattern);
    }

    /// <summary>
    /// Asks all connected hosts at once for what lies on one of them. One that does not answer matters only when the others do
    /// not have it: then its failure is what the user must know.
    /// </summary>
    /// <param name="find">Picks from the answers; empty when it is not there.</param>
    public static async Task<TFound[]> SearchAsync<TAnswer, TFound>(
        Func<KvmHostConnection, Task<TAnswer>> ask, Func<IEnumerable<(KvmHost Host, TAnswer Answer)>, IEnumerable<TFound>> find)
    {
        KvmHost[] hosts = All is { Length: > 0 } connected ? connected : throw Failure.NoHostConnected();
        Task<TAnswer>[] asked = [.. hosts.Select(h => ask(h.Connection))];
        var answers = new List<(KvmHost, TAnswer)>();
        FCtransException? failure = null;
        for (int i = 0; i < hosts.Length; i++)
        {
            try
            {
                answers.Add((hosts[i], await asked[i].ConfigureAwait(false)));
            }
            catch (FCtransException e)
            {
                failure ??= e;
            }
        }

        TFound[] found = [.. find(answers)];
        return found.Length == 0 && failure is not null ? throw failure : found;
    }

    private static bool SameName(string a, string b) => string.Equals(a, b, StringComparison.OrdinalIgnoreCase);
}
