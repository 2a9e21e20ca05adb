using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>
/// VMs as a parameter takes them: the object from Get-KvmVm, the name of a VM on one of the connected hosts, a name with wildcards, or a
/// host, which means all VMs there.
/// </summary>
public sealed class VmReference
{
    private readonly KvmVm? _vm;
    private readonly KvmHost? _host;
    private readonly string _name;

    /// <summary>A VM by its object.</summary>
    public VmReference(KvmVm vm)
    {
        _vm = vm;
        _name = vm.Name;
    }

    /// <summary>
    /// All VMs of a host. Without this a host that comes through the pipeline would be taken for a VM of its name, as it has one.
    /// </summary>
    public VmReference(KvmHost host)
    {
        _host = host;
        _name = host.Name;
    }

    /// <summary>A VM by its name; looked up on all connected hosts when it is used.</summary>
    public VmReference(string name) => _name = name;

    /// <inheritdoc/>
    public override string ToString() => _name;

    /// <summary>Whether none may be meant: by a name with wildcards, or a host. A VM's object means its very name.</summary>
    internal bool IsPattern => _host is not null || (_vm is null && WildcardPattern.ContainsWildcardCharacters(_name));

    /// <summary>The host, of all of whose VMs this is the name.</summary>
    internal KvmHost? Host => _host;

    /// <summary>Does nothing, unless a host that is meant is connected no more.</summary>
    /// <exception cref="FCtransException">HostNotConnected.</exception>
    internal void CheckHost()
    {
        if (_host is { IsDisconnected: true } host)
        {
            throw Failure.HostNotConnected(host.Name);
        }
    }

    /// <summary>Whether this is one VM's object.</summary>
    internal bool IsObject => _vm is not null;

    /// <summary>Whether this VM of this host is meant; what needs to know all VMs that there are to be told apart, <see cref="Pick"/> does.</summary>
    internal bool Matches(KvmHost host, string name) => _host is not null
        ? _host.Connection == host.Connection
        : IsPattern
            ? new WildcardPattern(_name, WildcardOptions.IgnoreCase).IsMatch(name)
            : string.Equals(name, _name, StringComparison.OrdinalIgnoreCase);

    /// <summary>Picks what is about the VMs that are meant, whether they run any more or not.</summary>
    /// <param name="all">What there is.</param>
    /// <param name="nameOf">The name of its VM.</param>
    /// <param name="isOn">Whether it is on a host.</param>
    /// <exception cref="FCtransException">HostNotConnected: the host that was meant.</exception>
    internal T[] Pick<T>(IEnumerable<T> all, Func<T, string> nameOf, Func<T, KvmHost, bool> isOn)
    {
        CheckHost();
        if (_host is { } host)
        {
            return [.. all.Where(a => isOn(a, host))];
        }

        if (IsPattern)
        {
            var pattern = new WildcardPattern(_name, WildcardOptions.IgnoreCase);
            return [.. all.Where(a => pattern.IsMatch(nameOf(a)))];
        }

        T[] found = [.. all.Where(a => string.Equals(nameOf(a), _name, StringComparison.OrdinalIgnoreCase))];

        // QEMU tells big letters from small: where both are there, the one that was written is meant.
        return found.Any(a => nameOf(a) == _name) ? [.. found.Where(a => nameOf(a) == _name)] : found;
    }

    /// <summary>
    /// Picks the VMs that are meant as they are now. A VM's object is that VM where it was; if it has left there, wherever it is.
    /// </summary>
    /// <exception cref="FCtransException">HostNotConnected: the host that was meant.</exception>
    internal KvmVm[] PickNow(IEnumerable<KvmVm> all)
    {
        KvmVm[] found = Pick(all, v => v.Name, IsOn);
        return _vm is not null && found.Any(v => IsOn(v, _vm.KvmHost)) ? [.. found.Where(v => IsOn(v, _vm.KvmHost))] : found;
    }

    /// <summary>The VM's object.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmAmbiguous, HostNotConnected.</exception>
    private async Task<KvmVm> ResolveAsync(CancellationToken cancellation)
    {
        if (_vm is not null)
        {
            return _vm.KvmHost.IsDisconnected ? throw Failure.HostNotConnected(_vm.KvmHost.Name) : _vm;
        }

        return One(_name, await SearchAsync(cancellation).ConfigureAwait(false));
    }

    /// <summary>The VMs' objects: one, or all that a name with wildcards or a host means, by their names; none is no error then.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmAmbiguous, HostNotConnected.</exception>
    internal async Task<KvmVm[]> ResolveAllAsync(CancellationToken cancellation)
    {
        if (!IsPattern)
        {
            return [await ResolveAsync(cancellation).ConfigureAwait(false)];
        }

        KvmVm[] found = await SearchAsync(cancellation).ConfigureAwait(false);

        // Two VMs of one name on two hosts are both meant here; one VM that is being moved is still one.
        return [.. found.GroupBy(v => (v.Name, v.SplitId.Length > 0 ? v.SplitId : v.HostName)).Select(g => One(g.Key.Name, [.. g]))
            .OrderBy(v => v.Name, StringComparer.OrdinalIgnoreCase)];
    }

    private async Task<KvmVm[]> SearchAsync(CancellationToken cancellation)
    {
        CheckHost();
        if (_host is { } host)
        {
            // What other hosts answer does not matter, nor whether they do.
            return [.. (await host.Connection.ListVmsAsync(cancellation).ConfigureAwait(false)).Select(v => new KvmVm(host, v))];
        }

        return await HostRegistry.SearchAsync(
            h => h.ListVmsAsync(cancellation),
            all => Pick(all.SelectMany(p => p.Answer.Select(v => new KvmVm(p.Host, v))), v => v.Name, IsOn)).ConfigureAwait(false);
    }

    private static bool IsOn(KvmVm vm, KvmHost host) => vm.KvmHost.Connection == host.Connection;

    private static KvmVm One(string name, KvmVm[] found)
    {
        // While a VM is moved, its main host has a QEMU of the same name that waits for it: one VM all the same.
        if (found.Length > 1 && found[0].SplitId.Length > 0 && found.All(v => v.SplitId == found[0].SplitId))
        {
            return found.FirstOrDefault(v => v.State == "running") ?? found[0];
        }

        return found.Length switch
        {
            1 => found[0],
            0 => throw Failure.VmNotFound(name, "any connected host"),
            _ => throw Failure.VmAmbiguous(name, string.Join(", ", found.Select(v => v.HostName))),
        };
    }
}
